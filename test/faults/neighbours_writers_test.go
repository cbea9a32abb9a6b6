package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// contestedNamespace spoils its targets, asks for refreshes and touches its credentials, each 50 times a second.
func contestedNamespace(h *neighbourhood) trouble {
	const floor = 30 * time.Second // between requests for a refresh that count
	identities, rate, namespace := scaled(32), scaled(50), h.guest()
	credentials, pkg := h.credentials(namespace, "contest", h.proxy.Listen)
	for i := range identities {
		pkg.AccountIDs = append(pkg.AccountIDs, account(i))
	}
	h.Expect(h.standIn.AddPackage(pkg)).To(Succeed())
	tokens := h.fillGuest(namespace, identities, 1)
	named := func(i int64) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("token-%d", int(i)%identities)}
	}
	annotated := func(name string, i int64) string {
		return fmt.Sprintf(`{"metadata":{"annotations":{%q:"%d"}}}`, name, i)
	}
	spoilt := h.keepPatching(rate, func(i int64) (client.Object, string) {
		return &corev1.Secret{ObjectMeta: named(i)}, fmt.Sprintf(`{"stringData":{"access_token":"mine %d"}}`, i)
	})
	asking := h.keepPatching(rate, func(i int64) (client.Object, string) {
		return &v1alpha1.SFMCToken{ObjectMeta: named(i)}, annotated(v1alpha1.RefreshRequestedAtAnnotation, i)
	})
	touched := h.keepPatching(rate, func(i int64) (client.Object, string) { return credentials.DeepCopy(), annotated("touched", i) })
	return trouble{
		what:   fmt.Sprintf("a namespace that spoils its targets, asks for refreshes and touches its credentials, each %d times a second", rate),
		tokens: tokens,
		signs: func() (string, bool) {
			return fmt.Sprintf("%d targets spoilt, %d refreshes asked for, credentials touched %d times", spoilt.Load(), asking.Load(), touched.Load()),
				min(spoilt.Load(), asking.Load(), touched.Load()) > 0
		},
		asked: func() int { return h.sent(pkg.ClientID) },
		allowed: func(lasted time.Duration, starts int) int {
			return identities * (starts + refreshesAllowed(lasted, victimLife) + int(lasted/floor))
		},
	}
}

// keepPatching patches one object after another until the row ends, and counts the patches.
func (h *neighbourhood) keepPatching(perSecond int, next func(i int64) (client.Object, string)) *atomic.Int64 {
	var done atomic.Int64
	i, ctx := int64(0), h.during
	go every(ctx, time.Second/time.Duration(perSecond), func(time.Time) {
		object, patch := next(i)
		i++
		if admin.Patch(ctx, object, client.RawPatch("application/merge-patch+json", []byte(patch))) == nil {
			done.Add(1)
		}
	})
	return &done
}

// forgedRecords are Secrets that look like target Secrets of the victim's identities, and targets of a namespace's own
// whose records name the victim's identities, or others at the victim's host, that seem to be due.
func forgedRecords(h *neighbourhood) trouble {
	count, namespace := scaled(1000), h.guest()
	credentials, pkg := h.credentials(namespace, "forger", h.proxy.Listen)
	pkg.AccountIDs = []string{account(0)}
	h.Expect(h.standIn.AddPackage(pkg)).To(Succeed())
	version := strings.Join([]string{namespace, credentials.Name, string(credentials.UID), credentials.ResourceVersion}, "/")
	var forge, use []func() error
	for i := range count {
		stolen := h.issuedFor(h.packages[0].AccountIDs[i%victimTokens])
		secret, record := &corev1.Secret{}, target.Record{Owner: fmt.Sprintf("victim-%d", i%victimTokens), IssuedFor: stolen}
		secret.Namespace, secret.Name = namespace, fmt.Sprintf("forged-%d", i)
		record.IssuedAt, record.ExpiresAt = time.Now().UTC(), time.Now().UTC().Add(time.Hour)
		if i%2 == 1 { // a target of an SFMCToken that is there
			record.Owner, record.AccountID, record.Credentials = secret.Name, account(0), version
			obj := harness.Token(namespace, secret.Name, credentials.Name, account(0))
			use = append(use, func() error { return admin.Create(h.ctx, obj) })
		}
		if i%4 == 1 { // of an identity that nobody has, and due
			invented := sha256.Sum256([]byte(secret.Name))
			record.Identity = hex.EncodeToString(invented[:])
			record.ExpiresAt = record.IssuedAt.Add(2 * time.Second)
			record.IssuedAt = record.IssuedAt.Add(-time.Hour)
		}
		h.forge(secret, record)
		forge = append(forge, func() error { return admin.Create(h.ctx, secret) })
	}
	h.Expect(concurrently(forge)).To(Succeed())
	h.Expect(concurrently(use)).To(Succeed())
	return trouble{
		what:   fmt.Sprintf("%d Secrets with forged records of the victim's identities and host, half of them targets", count),
		tokens: len(use),
		signs: func() (string, bool) {
			there := h.labelled(namespace)
			return fmt.Sprintf("%d forged Secrets", there), there >= count
		},
		asked:   func() int { return h.sent(pkg.ClientID) },
		allowed: func(lasted time.Duration, starts int) int { return starts + refreshesAllowed(lasted, victimLife) },
	}
}

// forge gives a Secret a record and a token for it. The seal fits, since anybody can compute it; the proof doesn't.
func (h *neighbourhood) forge(secret *corev1.Secret, record target.Record) {
	h.t.Helper()
	record.Proof = strings.Repeat("0", 64)
	held := &token.Token{IssuedFor: record.IssuedFor, ExpiresAt: record.ExpiresAt}
	held.AccessToken, held.TokenType = "forged", "Bearer"
	secret.Data = held.Data()
	marshal := func() string {
		encoded, err := json.Marshal(record)
		h.Expect(err).NotTo(HaveOccurred())
		return string(encoded)
	}
	fields := []string{marshal()}
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		fields = append(fields, key, string(secret.Data[key]))
	}
	record.Seal = token.Hash(fields...)
	secret.Labels = map[string]string{target.ManagedByLabel: target.ManagedByValue}
	secret.Annotations = map[string]string{"sfmctoken.dev/issued": marshal()}
	h.Expect(target.Of(secret).Token).NotTo(BeNil(), "the forgery must pass for what the operator writes")
}

// labelled counts the Secrets of a namespace that have the operator's label.
func (h *neighbourhood) labelled(namespace string) int {
	secrets := &metav1.PartialObjectMetadataList{}
	secrets.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
	managed := client.MatchingLabels{target.ManagedByLabel: target.ManagedByValue}
	h.Expect(admin.List(h.ctx, secrets, client.InNamespace(namespace), managed)).To(Succeed())
	return len(secrets.Items)
}

// floodOfSecrets is what etcd takes of large Secrets with the operator's label: its quota is 2 GiB, and the flood comes
// twice, as a row of its own and with all others.
func floodOfSecrets(h *neighbourhood) trouble {
	const size = 900_000
	count, namespace := scaled(540), h.guest()
	content := bytes.Repeat([]byte("flood "), size/6)
	for i := range count {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("flood-%d", i),
			Labels: map[string]string{target.ManagedByLabel: target.ManagedByValue}}, Data: map[string][]byte{"flood": content}}
		// One at a time, and again if need be: the operator is to suffer, and not etcd.
		create := func() error { return admin.Create(h.ctx, secret.DeepCopy()) }
		h.Eventually(create).Should(Or(Succeed(), MatchError(apierrors.IsAlreadyExists, "AlreadyExists")))
	}
	return trouble{
		what: fmt.Sprintf("%d Secrets of 0.9 MB with the operator's label", count),
		signs: func() (string, bool) {
			there := h.labelled(namespace)
			return fmt.Sprintf("%d MB in Secrets", there*size/1_000_000), there == count
		},
	}
}
