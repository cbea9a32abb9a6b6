package consumers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// volume is a folder that shows a Secret as the kubelet's volumes do. Files are links into ..data, which is a link to a
// folder that nobody changes: a new one replaces it at once.
type volume string

const data, newData = "..data", "..data_tmp"

func (v volume) path(name string) string { return filepath.Join(string(v), name) }

// show replaces what the folder shows.
func (v volume) show(keys map[string][]byte) error {
	before, err := os.Readlink(v.path(data))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	payload, err := os.MkdirTemp(string(v), "..")
	if err != nil {
		return err
	}
	for name, value := range keys {
		err = errors.Join(err, os.WriteFile(filepath.Join(payload, name), value, 0o600))
	}
	err = errors.Join(err, os.Symlink(filepath.Base(payload), v.path(newData)), os.Rename(v.path(newData), v.path(data)))
	if err != nil {
		return err
	}
	if err := v.link(keys); err != nil || before == "" {
		return err
	}
	return os.RemoveAll(v.path(before))
}

// link makes a link for each key, and removes those of other ones.
func (v volume) link(keys map[string][]byte) error {
	entries, err := os.ReadDir(string(v))
	if err != nil {
		return err
	}
	linked := map[string]bool{}
	for _, entry := range entries {
		name := entry.Name()
		if _, wanted := keys[name]; wanted || strings.HasPrefix(name, "..") {
			linked[name] = true
		} else {
			err = errors.Join(err, os.Remove(v.path(name)))
		}
	}
	for name := range keys {
		if !linked[name] {
			err = errors.Join(err, os.Symlink(filepath.Join(data, name), v.path(name)))
		}
	}
	return err
}
