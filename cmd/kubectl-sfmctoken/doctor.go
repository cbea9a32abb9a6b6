package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// doctor prints the SFMCTokens that have problems, and the pods that miss refreshes.
func (p *plugin) doctor(ctx context.Context, _ []string) error {
	tokens, err := p.tokens(p.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list SFMCTokens: %w", err)
	}
	if len(tokens.Items) == 0 {
		fmt.Fprintln(p.ErrOut, p.nothingFound())
		return nil
	}
	pods, podsErr := p.pods.Pods(p.namespace).List(ctx, metav1.ListOptions{})
	found := 0
	for i := range tokens.Items {
		found += p.diagnose(&tokens.Items[i], pods.Items)
	}
	if podsErr != nil { // what is known of the SFMCTokens has been said
		return fmt.Errorf("list Pods, to find those that miss refreshes: %w", podsErr)
	}
	looked := fmt.Sprintf("%s and %s", count(len(tokens.Items), "SFMCToken"), count(len(pods.Items), "Pod"))
	if found == 0 {
		fmt.Fprintf(p.Out, "No problem found with %s.\n", looked)
		return nil
	}
	fmt.Fprintf(p.Out, "%s found with %s.\n", count(found, "problem"), looked)
	return errFound
}

// diagnose prints what is wrong about one SFMCToken, and returns how much that is.
func (p *plugin) diagnose(token *v1alpha1.SFMCToken, pods []corev1.Pod) int {
	problems := doctor.Problems(token, p.clock.Now())
	readers := doctor.StaleReaders(token, pods)
	found := len(problems) + len(readers)
	if found == 0 {
		return 0
	}
	fmt.Fprintf(p.Out, "SFMCToken %s/%s\n", token.Namespace, token.Name)
	for _, problem := range problems {
		fmt.Fprintf(p.Out, "  %s\n", problem)
	}
	for i, reader := range readers {
		fmt.Fprintf(p.Out, "  %s\n", reader)
		if i+1 == len(readers) || readers[i+1].Advice() != reader.Advice() {
			fmt.Fprintf(p.Out, "    %s\n", reader.Advice())
		}
	}
	fmt.Fprintln(p.Out)
	return found
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
