package harness

import (
	"bytes"
	"strings"
	"sync"
)

// keptLines is how many of the last lines a Log keeps.
const keptLines = 2000

// Log counts the lines that the operator prints, and keeps the last ones.
type Log struct {
	mu      sync.Mutex
	rest    []byte // of a line that isn't complete
	last    []string
	lines   int
	errors  int
	watched []watchedLine
}

type watchedLine struct {
	text string
	call func()
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	var calls []func()
	l.mu.Lock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			break
		}
		calls = append(calls, l.add(string(line))...)
		l.rest = rest
	}
	l.mu.Unlock()
	for _, call := range calls {
		call()
	}
	return len(p), nil
}

func (l *Log) add(line string) []func() {
	l.lines++
	if strings.Contains(line, `"level":"error"`) {
		l.errors++
	}
	if l.last = append(l.last, line); len(l.last) > 2*keptLines {
		l.last = append([]string(nil), l.last[keptLines:]...)
	}
	var calls []func()
	for _, watched := range l.watched {
		if strings.Contains(line, watched.text) {
			calls = append(calls, watched.call)
		}
	}
	return calls
}

// notify has a function called for each line with this text.
func (l *Log) notify(text string, call func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched = append(l.watched, watchedLine{text, call})
}

// Count is how many lines were printed, and how many of them are errors.
func (l *Log) Count() (lines, errors int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines, l.errors
}

// String is the last lines.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n") + "\n" + string(l.rest)
}
