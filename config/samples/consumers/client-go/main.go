// Command client-go asks every minute which business unit the token of a mounted Secret acts in. Its HTTP client takes
// the token from client-go's cached file token source, which reads the file again after 50 seconds.
//
// SFMC_DIR is where the Secret is mounted (/sfmc), EVERY the seconds between calls (60).
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/transport"
)

var dir = cmp.Or(os.Getenv("SFMC_DIR"), "/sfmc")

func main() {
	seconds, err := strconv.ParseFloat(cmp.Or(os.Getenv("EVERY"), "60"), 64)
	// A 401 makes the source forget what it read: the next call reads the file again.
	source := transport.NewCachedFileTokenSource(filepath.Join(dir, "access_token"))
	client := &http.Client{
		Timeout:   30 * time.Second,
		Transport: transport.ResettableTokenSourceWrapTransport(source)(http.DefaultTransport),
	}
	for err == nil {
		if err = call(client); err == nil {
			time.Sleep(time.Duration(seconds * float64(time.Second)))
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// call calls the REST API.
func call(client *http.Client) error {
	url, err := fs.ReadFile(os.DirFS(dir), "rest_instance_url")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no rest_instance_url in %s: is the Secret mounted there, and is the SFMCToken Ready?", dir)
	}
	if err != nil {
		return err
	}
	url = append(url, "platform/v1/tokenContext"...)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, string(url), nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("the call failed: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("the call failed: %s: %s", answer.Status, body), err)
	}
	var answered struct {
		Organization struct {
			ID json.Number `json:"id"`
		} `json:"organization"`
	}
	if err := json.Unmarshal(body, &answered); err != nil {
		return err
	}
	fmt.Println("the token acts in business unit", answered.Organization.ID)
	return nil
}
