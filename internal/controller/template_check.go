package controller

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"
)

// A template may do what is listed here and nothing else. All of it can be checked before there is a token: what
// passes can fail only by making too much text.

// kind is what an expression of a template is.
type kind string

const (
	kindText  kind = "text"
	kindList  kind = "a list"
	kindTruth kind = "true or false"
	// kindMixed is what and or or makes of arguments of several kinds. It is good for conditions alone.
	kindMixed kind = "of several kinds"
	// kindFields is the token itself, of which only the fields can be used.
	kindFields kind = "the token"
	// In signatures, kindAny stands for any of these but the token, kindData for text or a list.
	kindAny  kind = "a value"
	kindData kind = "text or a list"
)

// signature is what a function takes and what becomes of it.
type signature struct {
	takes []kind
	// more lets the last argument be repeated.
	more  bool
	makes kind
}

// signatures are of all functions that a template can call. The builtins that are missing could print values into
// errors, or make any amount of text.
var signatures = map[string]signature{
	"and":        {takes: []kind{kindAny}, more: true, makes: kindAny}, // of the arguments' kind
	"b64enc":     {takes: []kind{kindText}, makes: kindText},
	"eq":         {takes: []kind{kindText, kindText}, more: true, makes: kindTruth},
	"join":       {takes: []kind{kindText, kindList}, makes: kindText},
	"lower":      {takes: []kind{kindText}, makes: kindText},
	"ne":         {takes: []kind{kindText, kindText}, makes: kindTruth},
	"not":        {takes: []kind{kindAny}, makes: kindTruth},
	"or":         {takes: []kind{kindAny}, more: true, makes: kindAny},
	"print":      {takes: []kind{kindText}, more: true, makes: kindText},
	"replace":    {takes: []kind{kindText, kindText, kindText}, makes: kindText},
	"toJson":     {takes: []kind{kindData}, makes: kindText},
	"trimPrefix": {takes: []kind{kindText, kindText}, makes: kindText},
	"trimSuffix": {takes: []kind{kindText, kindText}, makes: kindText},
	"upper":      {takes: []kind{kindText}, makes: kindText},
	"urlquery":   {takes: []kind{kindText}, makes: kindText},
}

// parserProblem is text/template's way to say where a template is wrong.
var parserProblem = regexp.MustCompile(`(?s)^template: [^:]*:(\d+): (.*)$`)

// parseTemplate returns a template that passes all checks, and takes its steps off the allowance, with so many scopes.
func parseTemplate(key, text string, scopes int, left *allowance) (*parse.Tree, error) {
	tree := parse.New(key)
	tree.Mode = parse.SkipFuncCheck // the check has a better message
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", trees); err != nil {
		invalid := &templateInvalidError{key: key, reason: "it is no Go template"}
		if match := parserProblem.FindStringSubmatch(err.Error()); match != nil {
			invalid.line, _ = strconv.Atoi(match[1])
			invalid.reason = fmt.Sprintf("%.200s", match[2])
		}
		return nil, invalid
	}
	c := &templateCheck{key: key, text: text, scopes: scopes, times: 1}
	for _, other := range trees {
		if other != tree {
			return nil, c.problem(other.Root, "define and block are not offered")
		}
	}
	if err := c.list(tree.Root, kindFields); err != nil {
		return nil, err
	}
	if left.steps -= c.steps; left.steps < 0 {
		return nil, &templateInvalidError{key: key, reason: fmt.Sprintf("the templates take more than %d steps in all; make them shorter", maxTemplateSteps)}
	}
	return tree, nil
}

// templateCheck walks through one template.
type templateCheck struct {
	key, text string
	scopes    int
	inRange   bool
	// times is how often what is looked at is done: inside of a range once for each scope.
	times, steps int
}

func (c *templateCheck) problem(at parse.Node, format string, args ...any) error {
	line := 1 + strings.Count(c.text[:min(int(at.Position()), len(c.text))], "\n")
	return &templateInvalidError{key: c.key, line: line, reason: fmt.Sprintf(format, args...)}
}

func (c *templateCheck) list(list *parse.ListNode, dot kind) error {
	if list == nil {
		return nil
	}
	for _, node := range list.Nodes {
		if err := c.node(node, dot); err != nil {
			return err
		}
	}
	return nil
}

func (c *templateCheck) node(node parse.Node, dot kind) error {
	c.steps += c.times
	switch node := node.(type) {
	case *parse.TextNode:
		return nil
	case *parse.ActionNode:
		is, err := c.pipe(node.Pipe, dot)
		switch {
		case err != nil:
			return err
		case is == kindList:
			return c.problem(node, "a list can't be written as it is; use join, toJson or range")
		case is == kindMixed:
			return c.problem(node, "what is of several kinds can't be written; use it in if")
		}
		return nil
	case *parse.IfNode:
		_, err := c.pipe(node.Pipe, dot)
		return c.branches(err, node.List, dot, node.ElseList, dot)
	case *parse.WithNode:
		is, err := c.pipe(node.Pipe, dot)
		return c.branches(err, node.List, is, node.ElseList, dot)
	case *parse.RangeNode:
		return c.loop(node, dot)
	}
	return c.problem(node, "%s is not offered; there are if, with and range", nameOf(node))
}

func (c *templateCheck) branches(err error, list *parse.ListNode, dot kind, elseList *parse.ListNode, elseDot kind) error {
	if err != nil {
		return err
	}
	if err := c.list(list, dot); err != nil {
		return err
	}
	return c.list(elseList, elseDot)
}

// loop checks a range. There is one list, so a range inside of a range would serve nobody but who wants to keep the
// operator busy.
func (c *templateCheck) loop(node *parse.RangeNode, dot kind) error {
	if c.inRange {
		return c.problem(node, "a range can't stand inside of a range")
	}
	switch is, err := c.pipe(node.Pipe, dot); {
	case err != nil:
		return err
	case is != kindList:
		return c.problem(node, "range takes a list, such as .Scopes, not %s", is)
	}
	inside := *c
	inside.inRange, inside.times, inside.steps = true, c.scopes, 0
	if err := inside.list(node.List, kindText); err != nil {
		return err
	}
	c.steps += inside.steps
	return c.list(node.ElseList, dot)
}

func (c *templateCheck) pipe(pipe *parse.PipeNode, dot kind) (kind, error) {
	if len(pipe.Decl) > 0 {
		return "", c.problem(pipe, "variables are not offered")
	}
	var is kind
	for i, command := range pipe.Cmds {
		var piped []kind
		if i > 0 {
			piped = []kind{is}
		}
		var err error
		if is, err = c.command(command, dot, piped); err != nil {
			return "", err
		}
	}
	return is, nil
}

func (c *templateCheck) command(command *parse.CommandNode, dot kind, piped []kind) (kind, error) {
	function, isCall := command.Args[0].(*parse.IdentifierNode)
	if !isCall {
		if len(command.Args) > 1 || len(piped) > 0 {
			return "", c.problem(command, "%s is no function, so it takes no argument", nameOf(command.Args[0]))
		}
		return c.operand(command.Args[0], dot)
	}
	var args []kind
	for _, arg := range command.Args[1:] {
		is, err := c.operand(arg, dot)
		if err != nil {
			return "", err
		}
		args = append(args, is)
	}
	return c.call(function, append(args, piped...))
}

func (c *templateCheck) call(function *parse.IdentifierNode, args []kind) (kind, error) {
	c.steps += c.times
	name := function.Ident
	known, found := signatures[name]
	if !found {
		return "", c.problem(function, "there is no function %.64s; there are %s", name, strings.Join(slices.Sorted(maps.Keys(signatures)), ", "))
	}
	switch least := len(known.takes); {
	case known.more && len(args) < least:
		return "", c.problem(function, "%s takes at least %s, not %d", name, arguments(least), len(args))
	case !known.more && len(args) != least:
		return "", c.problem(function, "%s takes %s, not %d", name, arguments(least), len(args))
	}
	for i, arg := range args {
		should := known.takes[min(i, len(known.takes)-1)]
		switch {
		case should == kindAny, should == arg, should == kindData && (arg == kindText || arg == kindList):
		default:
			return "", c.problem(function, "argument %d of %s must be %s, not %s", i+1, name, should, arg)
		}
	}
	switch {
	case known.makes != kindAny:
		return known.makes, nil
	case slices.ContainsFunc(args, func(arg kind) bool { return arg != args[0] }):
		return kindMixed, nil
	}
	return args[0], nil
}

func arguments(count int) string {
	if count == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", count)
}

// operand checks what stands alone or is an argument.
func (c *templateCheck) operand(node parse.Node, dot kind) (kind, error) {
	c.steps += c.times
	is, names := dot, []string(nil)
	switch node := node.(type) {
	case *parse.StringNode:
		return kindText, nil
	case *parse.PipeNode:
		return c.pipe(node, dot)
	case *parse.IdentifierNode:
		return c.call(node, nil)
	case *parse.DotNode:
	case *parse.FieldNode:
		names = node.Ident
	case *parse.VariableNode: // $ alone, since none can be declared
		is, names = kindFields, node.Ident[1:]
	default:
		return "", c.problem(node, "%s is not offered; there are texts in quotes, fields and functions", nameOf(node))
	}
	if len(names) == 0 {
		if is == kindFields {
			return "", c.problem(node, "%s is the whole token; name a field of it: %s", node, fieldNames())
		}
		return is, nil
	}
	field, found := reflect.TypeFor[templateFields]().FieldByName(names[0])
	switch {
	case is != kindFields:
		return "", c.problem(node, "inside of range and with, the token's fields are $.AccessToken and so on; %.64s is none", node)
	case !found:
		return "", c.problem(node, "there is no field .%.64s; there are %s", names[0], fieldNames())
	case len(names) > 1:
		return "", c.problem(node, ".%s has no field %.64s", names[0], names[1])
	case field.Type.Kind() == reflect.Slice:
		return kindList, nil
	}
	return kindText, nil
}

func fieldNames() string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeFor[templateFields]()) {
		names = append(names, "."+field.Name)
	}
	return strings.Join(names, ", ")
}

// nameOf is what people call a part of a template.
func nameOf(node parse.Node) string {
	switch node.(type) {
	case *parse.TemplateNode:
		return "template" // or block, which is a template
	case *parse.BreakNode:
		return "break"
	case *parse.ContinueNode:
		return "continue"
	case *parse.NumberNode:
		return "a number"
	case *parse.BoolNode:
		return "true or false"
	case *parse.NilNode:
		return "nil"
	case *parse.ChainNode:
		return "a field of something in parentheses"
	}
	return fmt.Sprintf("%.64s", node)
}
