//go:build !linux

package localcluster

import (
	"context"
	"errors"
)

var isolated, entrance string

// Isolate is for Linux alone, as is a node.
func Isolate(func(context.Context) error) error { return errors.New("a node needs Linux, and root") }

func mountNodeDir(string) error   { return errors.New("a node needs Linux") }
func unmountNodeDir(string) error { return nil }
func makeCgroup(string) error     { return errors.New("a node needs Linux") }
