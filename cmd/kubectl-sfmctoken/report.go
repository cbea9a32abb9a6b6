package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sfmctoken/sfmctoken-operator/internal/version"
)

// reporting is where the report goes.
type reporting struct{ file string }

func (r *reporting) addFlags(command *cobra.Command) {
	command.Flags().StringVar(&r.file, "output-file", "", "File to write, which must not exist "+
		"(default sfmctoken-report-TIME.tar.gz)")
}

// report writes an archive for a bug report. What may hold a secret is never put in: objects are made anew of the
// fields that can't, and of Secrets only the metadata is read.
func (p *plugin) report(ctx context.Context, _ []string) error {
	now := p.clock.Now().UTC()
	name := p.reporting.file
	if name == "" {
		name = "sfmctoken-report-" + now.Format("20060102-150405") + ".tar.gz"
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the person's own choice
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; name another file with --output-file", name)
	}
	if err != nil {
		return err
	}
	contents := &contents{}
	p.collect(ctx, contents)
	err = contents.writeTo(file, now)
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(name))
	}
	for _, missing := range contents.missing {
		fmt.Fprintf(p.ErrOut, "Not in it: %s\n", missing)
	}
	fmt.Fprintf(p.Out, "%s has %s. Look into it before you send it.\n", name, count(len(contents.files), "file"))
	return nil
}

// collect takes together what a report has.
func (p *plugin) collect(ctx context.Context, contents *contents) {
	about := fmt.Sprintf("kubectl-sfmctoken %s\nnamespace: %s\noperator's namespace: %s\n",
		version.Get(), orDash(p.namespace), p.home)
	tokens := p.reportTokens(ctx, contents)
	p.reportGrants(ctx, contents, tokens)
	p.reportEvents(ctx, contents)
	p.reportSecrets(ctx, contents, tokens)
	p.reportOperator(ctx, contents)
	findings, err := p.examine(ctx)
	contents.miss(err)
	contents.addJSON("doctor.json", findings)
	var checks bytes.Buffer
	contents.miss(printChecks(&checks, p.checks(ctx)))
	contents.add("check.txt", checks.Bytes())
	if len(contents.missing) > 0 {
		about += "\nNot in it:\n" + strings.Join(contents.missing, "\n") + "\n"
	}
	contents.add("about.txt", []byte(about))
}

// contents are the files of a report, and what could not be put in.
type contents struct {
	files   []reportFile
	missing []string
}

type reportFile struct {
	name string
	text []byte
}

func (c *contents) add(name string, text []byte) { c.files = append(c.files, reportFile{name, text}) }

func (c *contents) addJSON(name string, value any) {
	text, err := json.MarshalIndent(value, "", "  ")
	c.miss(err)
	c.add(name, append(text, '\n'))
}

func (c *contents) miss(err error) {
	if err != nil {
		c.missing = append(c.missing, err.Error())
	}
}

func (c *contents) writeTo(file *os.File, now time.Time) error {
	compressed := gzip.NewWriter(file)
	archive := tar.NewWriter(compressed)
	for _, f := range c.files {
		name := path.Join("sfmctoken-report", f.name)
		header := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(f.text)), ModTime: now}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(f.text); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}
