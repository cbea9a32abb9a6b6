package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/licensecheck"
	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// allowedLicenses ask for no more than that they and the copyright are passed on.
var allowedLicenses = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

func TestTheOperatorIsBuiltFromWhatItsLicenseGoesWith(t *testing.T) {
	g := NewWithT(t)
	var want strings.Builder
	found := licensesOfTheOperator(g)
	for _, module := range slices.Sorted(maps.Keys(found)) {
		for _, license := range found[module] {
			g.Expect(allowedLicenses).To(ContainElement(license), module)
		}
		fmt.Fprintf(&want, "| %s | %s |\n", module, strings.Join(found[module], ", "))
	}
	_, table, _ := strings.Cut(readDocument(g, "docs/licenses.md").Text, "| --- | --- |\n")
	g.Expect(table).To(Equal(want.String()), "docs/licenses.md must have this table:\n%s", want.String())
}

// licensesOfTheOperator are those of all modules from which the image's binary is built, and of Go's own library. Of a
// module, the files count that stand nearest to the packages in use: a package taken from elsewhere brings its own.
func licensesOfTheOperator(g *WithT) map[string][]string {
	list := exec.Command("go", "list", "-deps", "-json=Dir,Module,Root", "./cmd")
	list.Dir, list.Env = harness.Path(), append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := list.Output()
	g.Expect(err).NotTo(HaveOccurred())
	files := map[string]map[string]bool{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			Dir, Root string
			Module    *struct {
				Path, Dir string
				Main      bool
			}
		}
		err := decoder.Decode(&pkg)
		if errors.Is(err, io.EOF) {
			break
		}
		g.Expect(err).NotTo(HaveOccurred())
		switch {
		case pkg.Module == nil: // other licenses in there are for BoringCrypto, which the binary is built without
			files["Go's standard library"] = map[string]bool{filepath.Join(pkg.Root, "LICENSE"): true}
		case !pkg.Module.Main:
			if files[pkg.Module.Path] == nil {
				files[pkg.Module.Path] = map[string]bool{}
			}
			for _, file := range nearestLicense(g, pkg.Dir, pkg.Module.Dir) {
				files[pkg.Module.Path][file] = true
			}
		}
	}
	g.Expect(len(files)).To(BeNumerically(">", 30))
	found := map[string][]string{}
	for module, paths := range files {
		for path := range paths {
			text, err := os.ReadFile(path) //nolint:gosec // of a module that is built in
			g.Expect(err).NotTo(HaveOccurred())
			licenses, err := licensesIn(text)
			g.Expect(err).NotTo(HaveOccurred(), path)
			found[module] = append(found[module], licenses...)
		}
		slices.Sort(found[module])
		found[module] = slices.Compact(found[module])
	}
	return found
}

// nearestLicense are the license files in a folder, or in the nearest one above it that has some.
func nearestLicense(g *WithT, dir, root string) []string {
	for ; ; dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		g.Expect(err).NotTo(HaveOccurred())
		var found []string
		for _, entry := range entries {
			if !entry.IsDir() && regexp.MustCompile(`(?i)^(licen[cs]e|copying)([.-].*)?$`).MatchString(entry.Name()) {
				found = append(found, filepath.Join(dir, entry.Name()))
			}
		}
		if found != nil {
			return found
		}
		g.Expect(dir).NotTo(Or(Equal(root), Equal(filepath.Dir(dir))), "no license")
	}
}

// licensesIn names the licenses in a file, which must hold little else.
func licensesIn(text []byte) ([]string, error) {
	coverage := licensecheck.Scan(text)
	if coverage.Percent < 75 {
		return nil, fmt.Errorf("%.0f %% of the text isn't known as a license", 100-coverage.Percent)
	}
	var found []string
	for _, match := range coverage.Match {
		if !match.IsURL {
			found = append(found, match.ID)
		}
	}
	return found, nil
}

func TestAnotherLicenseIsNoticed(t *testing.T) {
	g := NewWithT(t)
	gpl, err := licensesIn([]byte("This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version."))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(gpl).To(HaveLen(1))
	g.Expect(allowedLicenses).NotTo(ContainElement(gpl[0]))
	_, err = licensesIn([]byte("Ask the author before you use this."))
	g.Expect(err).To(MatchError(ContainSubstring("isn't known")))
}
