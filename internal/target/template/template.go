// Package template makes further keys of a Secret from Go templates that anybody may have written. It promises that
// they make text of the fields and can do nothing else, that they take a bounded time and memory in all, that what is
// rendered with some fields is rendered with any others unless they are longer, and that no error quotes a field.
package template

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
)

const (
	// maxBytes bounds the text that the templates of one Secret make in all, on the way or as values.
	maxBytes = 256 << 10
	// maxSteps bounds what they do in all: texts, fields, calls, and those in a range for each element.
	maxSteps = 50_000
)

var (
	errBytes = fmt.Errorf("the templates make more than %d KiB of text in all; make them shorter", maxBytes>>10)
	errSteps = fmt.Errorf("the templates take more than %d steps in all; make them shorter", maxSteps)
)

// Fields are what a template can name: texts (string) and lists ([]string), by name without the dot. What is of another
// type isn't offered. Fields must have no methods: templates could call them.
type Fields map[string]any

// Error says why a template can't be rendered.
type Error struct {
	Key    string
	Line   int // 0 if no line is to blame
	Reason string
}

func (e *Error) Error() string {
	where := "key " + e.Key
	if e.Line > 0 {
		where += fmt.Sprintf(", line %d", e.Line)
	}
	return fmt.Sprintf("spec.target.template.data, %s: %s", where, e.Reason)
}

// Render returns a value for each template, or an *Error about the first, by key, that can't be rendered. With a
// specimen of the fields, it tells that before there is a token.
func Render[T ~string](templates map[string]T, fields Fields) (map[string][]byte, error) {
	if len(templates) == 0 {
		return nil, nil
	}
	check, left := newCheck(fields), allowance(maxBytes)
	executor := texttemplate.New("").Funcs(left.functions())
	data := make(map[string][]byte, len(templates))
	for _, key := range slices.Sorted(maps.Keys(templates)) {
		var value bytes.Buffer
		if executor.Tree = check.template(string(templates[key])); check.problem == nil {
			check.problem = problemOf(executor.Execute(io.MultiWriter(&left, &value), fields), false)
		}
		if check.problem != nil {
			check.problem.Key = key
			return nil, check.problem
		}
		data[key] = value.Bytes()
	}
	return data, nil
}

// said takes an error of text/template to pieces: the line and the rest. What a function said is the rest alone.
var said = regexp.MustCompile(`(?s)^template: :(\d+):(?:\d+: executing "")? (?:at <.*?>: error calling \w+: )?(.*)$`)

// problemOf returns what ended a template, if anything did. Only an error that is of harmless values is quoted.
func problemOf(err error, harmless bool) *Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errBytes):
		return &Error{Reason: errBytes.Error()}
	}
	problem := &Error{Reason: "it can't be rendered"}
	if match := said.FindStringSubmatch(err.Error()); match != nil {
		problem.Line, _ = strconv.Atoi(match[1])
		if harmless {
			problem.Reason = quote(match[2], 200)
		}
	}
	return problem
}

// quote returns so many bytes of a text at most, on one line and in whole characters.
func quote(text string, size int) string {
	text = strings.Join(strings.Fields(text), " ")
	return strings.ToValidUTF8(text[:min(len(text), size)], "")
}

// allowance is how many bytes may still be made.
type allowance int

func (a *allowance) spend(count int) error {
	if *a -= allowance(count); *a < 0 {
		return errBytes
	}
	return nil
}

func (a *allowance) Write(text []byte) (int, error) { return len(text), a.spend(len(text)) }

// functions are those that a template can call, beside and, eq, ne, not and or. Each is pure, and only the types of its
// arguments decide whether it fails. Each spends what it is given. What it makes is spent where it is used, and is not
// much longer, or is measured before it is made.
func (a *allowance) functions() texttemplate.FuncMap {
	one := func(change func(string) string) any {
		return func(text string) (string, error) { return change(text), a.spend(len(text)) }
	}
	join := func(separator string, list []string) (string, error) {
		count := len(separator) * len(list)
		for _, text := range list {
			count += len(text)
		}
		if err := a.spend(count); err != nil {
			return "", err
		}
		return strings.Join(list, separator), nil
	}
	return texttemplate.FuncMap{
		"b64enc": one(func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }),
		"join":   join,
		"lower":  one(strings.ToLower),
		"print":  func(text string, more ...string) (string, error) { return join("", slices.Insert(more, 0, text)) },
		"replace": func(old, with, text string) (string, error) {
			if err := a.spend(len(text) + strings.Count(text, old)*len(with)); err != nil {
				return "", err
			}
			return strings.ReplaceAll(text, old, with), nil
		},
		"toJson": func(value any) (string, error) {
			switch value.(type) {
			case string, []string:
				encoded, err := json.Marshal(value)
				return string(encoded), errors.Join(err, a.spend(len(encoded)))
			}
			return "", errors.New("toJson takes text or a list")
		},
		"trimPrefix": func(cut, of string) (string, error) { return strings.TrimPrefix(of, cut), a.spend(len(of)) },
		"trimSuffix": func(cut, of string) (string, error) { return strings.TrimSuffix(of, cut), a.spend(len(of)) },
		"upper":      one(strings.ToUpper),
		"urlquery":   one(url.QueryEscape),
	}
}

// check walks through templates, and allows what is listed here and nothing else. It tries each expression on harmless
// values, whether or not they lead there: it is of the same type with any others.
type check struct {
	harmless  Fields
	longest   int // list
	functions []string
	executor  *texttemplate.Template
	dot, made any // of the expression that it executes
	steps     int // that are left
	// Of the template, and where in it the walk is:
	text    string
	inRange bool
	times   int // that a step is done
	problem *Error
}

func newCheck(fields Fields) *check {
	c := &check{harmless: Fields{}, steps: maxSteps}
	for name, value := range fields {
		switch value := value.(type) {
		case string:
			c.harmless[name] = "x"
		case []string:
			c.harmless[name] = []string{"x"}
			c.longest = max(c.longest, len(value))
		}
	}
	left := allowance(maxBytes)
	functions := left.functions()
	functions["and"], functions["or"] = choose, choose
	functions["eq"] = func(_, _ string, _ ...string) bool { return true }
	functions["ne"] = func(_, _ string) bool { return true }
	functions["not"] = func(any) bool { return true }
	c.functions = slices.Sorted(maps.Keys(functions))
	c.executor = texttemplate.New("").Funcs(functions).Funcs(texttemplate.FuncMap{
		"given": func() []any { return []any{c.dot} },
		"makes": func(value any) string { c.made = value; return "" },
	})
	return c
}

// mixed is what and and or make of arguments of several types. It is good for conditions alone.
type mixed struct{}

// choose stands for and and or. Those of text/template leave out arguments, depending on values.
func choose(first any, more ...any) any {
	if slices.ContainsFunc(more, func(next any) bool { return reflect.TypeOf(next) != reflect.TypeOf(first) }) {
		return mixed{}
	}
	return first
}

// template returns a template, unless there is a problem.
func (c *check) template(text string) *parse.Tree {
	c.text, c.times = text, 1
	tree, trees := parse.New(""), map[string]*parse.Tree{}
	tree.Mode = parse.SkipFuncCheck // the check has a better message
	if _, err := tree.Parse(text, "", "", trees); err != nil {
		c.problem = problemOf(err, true)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		if trees[name] != tree {
			c.refuse(trees[name].Root, "define and block are not offered")
		}
	}
	c.list(tree.Root, c.harmless)
	if c.steps < 0 && c.problem == nil {
		c.problem = &Error{Reason: errSteps.Error()}
	}
	return tree
}

func (c *check) refuse(at parse.Node, format string, args ...any) {
	if c.problem == nil {
		line := 1 + strings.Count(c.text[:at.Position()], "\n")
		c.problem = &Error{Line: line, Reason: fmt.Sprintf(format, args...)}
	}
}

// list checks nodes, for which the dot is as this one.
func (c *check) list(list *parse.ListNode, dot any) {
	if list == nil {
		return
	}
	for _, node := range list.Nodes {
		switch node := node.(type) {
		case *parse.TextNode:
			c.steps -= c.times
		case *parse.ActionNode:
			switch c.try(node.Pipe, dot).(type) {
			case []string:
				c.refuse(node, "a list can't be written as it is; use join, toJson or range")
			case mixed:
				c.refuse(node, "what is of several types can't be written; use it in if")
			}
		case *parse.IfNode:
			c.try(node.Pipe, dot)
			c.list(node.List, dot)
			c.list(node.ElseList, dot)
		case *parse.WithNode:
			c.list(node.List, c.try(node.Pipe, dot))
			c.list(node.ElseList, dot)
		case *parse.RangeNode:
			if c.inRange { // it would serve nobody but who wants to keep the operator busy
				c.refuse(node, "a range can't stand inside of a range")
			}
			if _, isList := c.try(node.Pipe, dot).([]string); !isList {
				c.refuse(node, "range takes a list")
			}
			c.inRange, c.times = true, c.longest
			c.list(node.List, "x")
			c.inRange, c.times = false, 1
			c.list(node.ElseList, dot)
		default:
			c.refuse(node, "%s is not offered; there are if, with and range", quote(node.String(), 64))
		}
	}
}

// try returns what an expression makes of harmless values.
func (c *check) try(pipe *parse.PipeNode, dot any) any {
	if c.operand(pipe, dot); c.problem != nil {
		return nil
	}
	// {{ range given }}{{ makes (pipe) }}{{ end }}, since a with leaves out what is empty
	given := &parse.PipeNode{Cmds: []*parse.CommandNode{{Args: []parse.Node{parse.NewIdentifier("given")}}}}
	makes := &parse.PipeNode{Cmds: []*parse.CommandNode{{Args: []parse.Node{parse.NewIdentifier("makes"), pipe}}}}
	list := &parse.ListNode{Nodes: []parse.Node{&parse.ActionNode{Pipe: makes}}}
	loop := &parse.RangeNode{BranchNode: parse.BranchNode{Pipe: given, List: list}}
	c.executor.Tree = &parse.Tree{Root: &parse.ListNode{Nodes: []parse.Node{loop}}}
	c.dot = dot
	c.problem = problemOf(c.executor.Execute(io.Discard, c.harmless), true)
	return c.made
}

// operand checks an expression, a function, or what stands alone or is an argument.
func (c *check) operand(node parse.Node, dot any) {
	c.steps -= c.times
	switch node := node.(type) {
	case *parse.StringNode:
	case *parse.PipeNode:
		if len(node.Decl) > 0 {
			c.refuse(node, "variables are not offered")
		}
		for _, command := range node.Cmds {
			for _, arg := range command.Args {
				c.operand(arg, dot)
			}
		}
	case *parse.IdentifierNode:
		if !slices.Contains(c.functions, node.Ident) {
			c.refuse(node, "there is no function %.64s; there are %s", node.Ident, strings.Join(c.functions, ", "))
		}
	case *parse.DotNode:
		if _, outside := dot.(Fields); outside {
			c.field(node, nil)
		}
	case *parse.FieldNode:
		c.field(node, node.Ident)
		if _, outside := dot.(Fields); !outside {
			c.refuse(node, "inside of range and with, write $%s", node)
		}
	case *parse.VariableNode: // $ alone, since none can be declared
		c.field(node, node.Ident[1:])
	default:
		c.refuse(node, "%s is not offered; there are texts in quotes, fields and functions", quote(node.String(), 64))
	}
}

func (c *check) field(node parse.Node, names []string) {
	offered := "." + strings.Join(slices.Sorted(maps.Keys(c.harmless)), ", .")
	switch {
	case len(names) == 0:
		c.refuse(node, "%s is the whole token; name a field of it: %s", node, offered)
	case c.harmless[names[0]] == nil:
		c.refuse(node, "there is no field .%.64s; there are %s", names[0], offered)
	case len(names) > 1:
		c.refuse(node, ".%s has no field %.64s", names[0], names[1])
	}
}
