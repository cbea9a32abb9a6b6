package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// floorCommand makes this program the floor: a process of its own, so that its CPU time and memory can be told from
// what the measuring costs.
const floorCommand = "floor"

// floor is the least that any program must do for a token: one request to Marketing Cloud and two writes. It watches
// nothing, reads nothing, decides nothing and recovers from nothing.
type floor struct {
	http        *http.Client
	secrets     kubernetes.Interface // protobuf
	tokens      rest.Interface       // JSON, which is all that a custom resource has
	credentials map[string][]byte
	work        []*floorToken
	concurrency int
	version     string // of the cluster when follow read it
}

// floorToken is one SFMCToken and the Secret that was written for it.
type floorToken struct {
	*v1alpha1.SFMCToken
	secret *corev1.Secret
}

// runFloor is the floor's process. It obeys lines on stdin ("create", "refresh" with the time between two tokens, or
// "follow") and answers each with a line when it is done, until stdin ends.
func runFloor(args []string) error {
	flags := flag.NewFlagSet(floorCommand, flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "")
	caFile := flags.String("ca-file", "", "")
	concurrency := flags.Int("concurrency", 32, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGTERM)
	ctx := context.Background()
	f, err := newFloor(ctx, *kubeconfig, *caFile)
	if err != nil {
		return err
	}
	f.concurrency = *concurrency
	fmt.Println("ready")
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		if err := f.obey(ctx, commands.Text()); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return commands.Err()
}

func (f *floor) obey(ctx context.Context, line string) error {
	command, argument, _ := strings.Cut(line, " ")
	switch command {
	case "create":
		return f.doAll(ctx, 0, f.create)
	case "refresh":
		pace, err := time.ParseDuration(argument)
		if err != nil {
			return err
		}
		return f.doAll(ctx, pace, f.refresh)
	case "follow":
		return f.follow(ctx)
	}
	return fmt.Errorf("unknown command %q", line)
}

func newFloor(ctx context.Context, kubeconfig, caFile string) (*floor, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // as the operator
	f := &floor{}
	if f.http, err = newHTTPClient(caFile); err != nil {
		return nil, err
	}
	protobuf := rest.CopyConfig(config)
	protobuf.ContentType = runtime.ContentTypeProtobuf
	if f.secrets, err = kubernetes.NewForConfig(protobuf); err != nil {
		return nil, err
	}
	config.APIPath, config.GroupVersion = "/apis", &v1alpha1.GroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(harness.Scheme).WithoutConversion()
	if f.tokens, err = rest.RESTClientFor(config); err != nil {
		return nil, err
	}
	var list v1alpha1.SFMCTokenList
	if err := f.tokens.Get().Resource("sfmctokens").Do(ctx).Into(&list); err != nil {
		return nil, err
	}
	for i := range list.Items {
		f.work = append(f.work, &floorToken{SFMCToken: &list.Items[i]})
	}
	secret, err := f.secrets.CoreV1().Secrets(namespaceName(0)).Get(ctx, credentialsName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	f.credentials = secret.Data
	return f, nil
}

// doAll does something for each token: at once, or one after the other at this pace.
func (f *floor) doAll(ctx context.Context, pace time.Duration, do func(context.Context, *floorToken) error) error {
	queue := make(chan *floorToken)
	results := make(chan error)
	for range f.concurrency {
		go func() {
			var errs []error
			for token := range queue {
				errs = append(errs, do(ctx, token))
			}
			results <- errors.Join(errs...)
		}()
	}
	start := time.Now()
	for i, token := range f.work {
		if wait := time.Until(start.Add(time.Duration(i) * pace)); pace > 0 && wait > 0 {
			time.Sleep(wait) // the pace itself is what is measured
		}
		queue <- token
	}
	close(queue)
	var errs []error
	for range f.concurrency {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

func (f *floor) create(ctx context.Context, token *floorToken) error {
	answer, at, err := f.requestToken(ctx, token)
	if err != nil {
		return err
	}
	token.secret, err = f.secrets.CoreV1().Secrets(token.Namespace).Create(ctx, composeSecret(token, answer, at), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return f.patchStatus(ctx, token, composeStatus(token, answer, at))
}

func (f *floor) refresh(ctx context.Context, token *floorToken) error {
	answer, at, err := f.requestToken(ctx, token)
	if err != nil {
		return err
	}
	secret := composeSecret(token, answer, at)
	secret.ResourceVersion = token.secret.ResourceVersion
	token.secret, err = f.secrets.CoreV1().Secrets(token.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	status := composeStatus(token, answer, at)
	return f.patchStatus(ctx, token, map[string]any{
		"expiresAt": status.ExpiresAt, "refreshAt": status.RefreshAt, "lastRefreshAt": status.LastRefreshAt,
	})
}

func (f *floor) patchStatus(ctx context.Context, token *floorToken, status any) error {
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	return f.tokens.Patch("application/merge-patch+json").Namespace(token.Namespace).Resource("sfmctokens").
		Name(token.Name).SubResource("status").Body(patch).Do(ctx).Into(&v1alpha1.SFMCToken{})
}

// answer is what Marketing Cloud sends.
type answer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	Scope       string `json:"scope"`
	REST        string `json:"rest_instance_url"`
	SOAP        string `json:"soap_instance_url"`
}

func (f *floor) requestToken(ctx context.Context, token *floorToken) (answer, time.Time, error) {
	var got answer
	body, err := json.Marshal(map[string]string{
		"grant_type":    "client_credentials",
		"client_id":     string(f.credentials["client_id"]),
		"client_secret": string(f.credentials["client_secret"]),
		"account_id":    token.Spec.AccountID,
	})
	if err != nil {
		return got, time.Time{}, err
	}
	url := string(f.credentials["auth_base_uri"]) + "v2/token"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return got, time.Time{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	at := time.Now()
	response, err := f.http.Do(request)
	if err != nil {
		return got, at, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("token request: %s", response.Status)
	}
	return got, at, errors.Join(err, json.Unmarshal(text, &got))
}
