package preseed

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode/utf8"
)

// The bounds of what a template does, counted and not timed, so that the same text always ends the same way.
const (
	maxSteps     = 500_000  // parts of the template that are evaluated
	maxText      = 4 << 20  // bytes that its functions read and make, all together
	templateCost = 500      // of these is one call of another template
	maxPiece     = 64 << 10 // bytes of one text that a function makes
)

// Template is an operator's text, parsed. It sees plain values and fixed functions: no methods, no files, nothing of other machines.
type Template struct {
	t *template.Template
}

// budget is what is left to one run.
type budget struct {
	steps, text int
}

var (
	errSteps = fmt.Errorf("the template does more than %d steps: shorten its loops", maxSteps)
	errText  = fmt.Errorf("the template's functions make more than %d bytes of text", maxText)
	errPiece = fmt.Errorf("a function of the template makes more than %d bytes of text", maxPiece)
	errLong  = fmt.Errorf("the template's output is longer than %d bytes", MaxOutput)
)

// take charges a text that a function reads or is about to make.
func (b *budget) take(n int) error {
	if n > maxPiece || n < 0 {
		return errPiece
	}
	if b.text -= n; b.text < 0 {
		return errText
	}
	return nil
}

func (b *budget) keep(s string) (string, error) { return s, b.take(len(s)) }

// printfFormat are the formats that printf takes: no widths by argument, and none that fill the memory.
var printfFormat = regexp.MustCompile(`^([^%]|%[-+0]?[0-9]{0,3}[sdvqxXc%])*$`)

// removed are functions of text/template that templates here do without.
var removed = []string{"call", "html", "js"}

// functions are everything that a template can call, beside and, or, not, eq, ne, lt, le, gt, ge, len, index and slice.
func functions(b *budget) template.FuncMap {
	gone := func(...any) (string, error) { return "", errors.New("there is no such function") }
	m := template.FuncMap{
		"tick": func(n int) (string, error) {
			if b.steps -= n; b.steps < 0 {
				return "", errSteps
			}
			return "", nil
		},
		"json": func(v any) (string, error) {
			s, err := jsonText(v)
			if err != nil {
				return "", err
			}
			return b.keep(s)
		},
		"yaml": func(v any) (string, error) { // JSON as jsonText writes it is YAML, whatever the reader's version
			s, err := jsonText(v)
			if err != nil {
				return "", err
			}
			return b.keep(s)
		},
		"shell": func(v any) (string, error) {
			s := fmt.Sprint(v)
			if strings.ContainsRune(s, 0) {
				return "", errors.New("the shell has no words with a NUL")
			}
			return b.keep(shellWord(s))
		},
		"xml": func(v any) (string, error) {
			var out bytes.Buffer
			if err := xml.EscapeText(&out, []byte(fmt.Sprint(v))); err != nil {
				return "", err
			}
			return b.keep(out.String())
		},
		"line": func(v any) (string, error) {
			s, err := oneLine("a value", fmt.Sprint(v))
			if err != nil {
				return "", err
			}
			return b.keep(s)
		},
		"indent": func(n int, s string) (string, error) {
			if n < 0 || n > 100 {
				return "", errors.New("indent takes 0 to 100 spaces")
			}
			if err := b.take(len(s) + (strings.Count(s, "\n")+1)*n); err != nil {
				return "", err
			}
			pad := strings.Repeat(" ", n)
			return pad + strings.ReplaceAll(s, "\n", "\n"+pad), nil
		},
		"replace": func(old, with, s string) (string, error) {
			if old == "" {
				return "", errors.New("replace takes a text to look for")
			}
			if err := b.take(len(s)); err != nil {
				return "", err
			}
			n := strings.Count(s, old)
			if err := b.take(len(s) + n*len(with) - n*len(old)); err != nil {
				return "", err
			}
			return strings.ReplaceAll(s, old, with), nil
		},
		"join": func(sep string, list []any) (string, error) {
			words, size := make([]string, len(list)), 0
			for i, v := range list {
				words[i] = fmt.Sprint(v)
				size += len(words[i]) + len(sep)
			}
			if err := b.take(size); err != nil {
				return "", err
			}
			return strings.Join(words, sep), nil
		},
		"split": func(sep, s string) ([]any, error) {
			if sep == "" {
				return nil, errors.New("split takes a text to split at")
			}
			if err := b.take(len(s)); err != nil {
				return nil, err
			}
			var out []any
			for _, w := range strings.Split(s, sep) {
				out = append(out, w)
			}
			return out, nil
		},
		"default": func(otherwise, v any) any {
			if truth, ok := template.IsTrue(v); ok && truth {
				return v
			}
			return otherwise
		},
		"base64":    func(s string) (string, error) { return b.keep(base64.StdEncoding.EncodeToString([]byte(s))) },
		"lower":     func(s string) (string, error) { return b.keep(strings.ToLower(s)) },
		"upper":     func(s string) (string, error) { return b.keep(strings.ToUpper(s)) },
		"trim":      func(s string) (string, error) { return strings.TrimSpace(s), b.take(len(s)) },
		"contains":  func(part, s string) (bool, error) { return strings.Contains(s, part), b.take(len(s)) },
		"hasPrefix": func(prefix, s string) (bool, error) { return strings.HasPrefix(s, prefix), b.take(len(prefix)) },
		"hasSuffix": func(suffix, s string) (bool, error) { return strings.HasSuffix(s, suffix), b.take(len(suffix)) },
		"print":     func(v ...any) (string, error) { return b.keep(fmt.Sprint(v...)) },
		"println":   func(v ...any) (string, error) { return b.keep(fmt.Sprintln(v...)) },
		"printf": func(format string, v ...any) (string, error) {
			if !printfFormat.MatchString(format) {
				return "", errors.New("printf knows %s %d %v %q %x %c with widths up to 999")
			}
			return b.keep(fmt.Sprintf(format, v...))
		},
		"urlquery": func(v any) (string, error) { return b.keep(template.URLQueryEscaper(v)) },
	}
	for _, name := range removed {
		m[name] = gone
	}
	return m
}

// jsonText is JSON in one line that is YAML as well: what YAML's readers do not take as a character stands as an escape.
func jsonText(v any) (string, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	var out strings.Builder
	for _, r := range strings.TrimSuffix(buf.String(), "\n") {
		if r >= 0x7f && r < 0xa0 || r == '\ufeff' || r == '\ufffe' || r == '\uffff' {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	return out.String(), nil
}

// ParseTemplate reads a template.
func ParseTemplate(name, text string) (*Template, error) {
	if len(text) > MaxTemplate {
		return nil, fmt.Errorf("a template has at most %d bytes", MaxTemplate)
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, errors.New("a template is UTF-8 text")
	}
	t, err := template.New(name).Option("missingkey=error").Funcs(functions(&budget{})).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	for _, each := range t.Templates() {
		if each.Tree == nil {
			continue
		}
		if err := countList(each.Root); err != nil {
			return nil, err
		}
	}
	return &Template{t}, nil
}

// tick is an action that counts.
func tick(n int) (parse.Node, error) {
	trees, err := parse.Parse("tick", fmt.Sprintf("{{tick %d}}", n), "", "", map[string]any{"tick": true})
	if err != nil {
		return nil, err
	}
	return trees["tick"].Root.Nodes[0], nil
}

// countList puts a count in front of every action of a list and at its beginning, so that loops and recursion of any shape come to an end,
// and refuses functions that are not there.
func countList(l *parse.ListNode) error {
	if l == nil {
		return nil
	}
	first, err := tick(1)
	if err != nil {
		return err
	}
	nodes := []parse.Node{first}
	for _, n := range l.Nodes {
		var (
			pipe *parse.PipeNode
			b    *parse.BranchNode
		)
		switch n := n.(type) {
		case *parse.IfNode:
			b = &n.BranchNode
		case *parse.RangeNode:
			b = &n.BranchNode
		case *parse.WithNode:
			b = &n.BranchNode
		case *parse.ActionNode:
			pipe = n.Pipe
		case *parse.TemplateNode:
			// Recursion costs memory besides.
			count, err := tick(templateCost)
			if err != nil {
				return err
			}
			nodes, pipe = append(nodes, count), n.Pipe
		}
		if b != nil {
			pipe = b.Pipe
			if err := errors.Join(countList(b.List), countList(b.ElseList)); err != nil {
				return err
			}
		}
		if pipe != nil {
			parts, err := countParts(pipe)
			if err != nil {
				return err
			}
			count, err := tick(parts)
			if err != nil {
				return err
			}
			nodes = append(nodes, count)
		}
		nodes = append(nodes, n)
	}
	l.Nodes = nodes
	return nil
}

// countParts is how many parts an action has.
func countParts(n parse.Node) (int, error) {
	switch n := n.(type) {
	case *parse.PipeNode:
		total := 1
		for _, c := range n.Cmds {
			for _, a := range c.Args {
				parts, err := countParts(a)
				if err != nil {
					return 0, err
				}
				total += parts
			}
		}
		return total, nil
	case *parse.ChainNode:
		parts, err := countParts(n.Node)
		return parts + len(n.Field), err
	case *parse.FieldNode:
		return len(n.Ident), nil
	case *parse.VariableNode:
		return len(n.Ident), nil
	case *parse.IdentifierNode:
		if slices.Contains(removed, n.Ident) || n.Ident == "tick" {
			return 0, fmt.Errorf("function %q not defined", n.Ident)
		}
	}
	return 1, nil
}

type limited struct {
	b bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	if l.b.Len()+len(p) > MaxOutput {
		return 0, errLong
	}
	return l.b.Write(p)
}

var _ io.Writer = (*limited)(nil)

// Execute renders the template with values: texts, numbers, booleans, and lists and mappings of these.
func (t *Template) Execute(values map[string]any) ([]byte, error) {
	own, err := t.t.Clone()
	if err != nil {
		return nil, err
	}
	var out limited
	if err := own.Funcs(functions(&budget{maxSteps, maxText})).Execute(&out, values); err != nil {
		return nil, templateError(err)
	}
	return out.b.Bytes(), nil
}

var errorPlace = regexp.MustCompile(`^template: .*?:([0-9]+)(:[0-9]+)?: (executing .* at <.*>: )?`)

// templateError says what is wrong with a template by its line, in words without the machinery's.
func templateError(err error) error {
	for _, own := range []error{errSteps, errText, errPiece, errLong} {
		if errors.Is(err, own) {
			return own
		}
	}
	text := err.Error()
	if m := errorPlace.FindStringSubmatch(text); m != nil {
		text = "line " + m[1] + ": " + text[len(m[0]):]
	}
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[:500], "") + "…"
	}
	return errors.New(text)
}

// CheckOutput says whether what a template made is of a kind; of YAML it answers the mapping.
func CheckOutput(k Kind, out []byte) (map[string]any, error) {
	switch k {
	case CloudConfig:
		if first, _, _ := bytes.Cut(out, []byte("\n")); string(bytes.TrimRight(first, " \t\r")) != "#cloud-config" {
			return nil, errors.New("the first line of a cloud-config is #cloud-config")
		}
		m, err := readMapping(out)
		if err != nil {
			return nil, err
		}
		if _, ok := m["datasource"].(map[string]any); !ok {
			return nil, errors.New("it names no datasource, without which a machine finds nothing: keep {{.preseed_data}} in it")
		}
		return m, nil
	case Mapping:
		return readMapping(out)
	case XML:
		dec := xml.NewDecoder(bytes.NewReader(out))
		elements := 0
		for {
			tok, err := dec.Token()
			if errors.Is(err, io.EOF) {
				if elements == 0 {
					return nil, errors.New("this is no XML: it has no element")
				}
				return nil, nil
			}
			if err != nil {
				return nil, fmt.Errorf("this is no XML: %w", err)
			}
			switch tok.(type) {
			case xml.StartElement:
				elements++
			case xml.Directive:
				return nil, errors.New("a document type is not allowed")
			}
		}
	}
	return nil, nil
}

// Check tries a text as a template of a name: it parses it, renders it for a machine that does not exist, and reads what comes out.
func Check(name, text string) (p Prefix, out []byte, err error) {
	if p, err = PrefixOf(name); err != nil {
		return p, nil, err
	}
	t, err := ParseTemplate(name, text)
	if err == nil {
		out, err = t.Execute(Sample(p.Kind).Map())
	}
	var m map[string]any
	if err == nil {
		m, err = CheckOutput(p.Kind, out)
	}
	if err == nil && p.Name == PrefixAutoinstall {
		_, err = AutoinstallTemplate(m)
	}
	if err != nil {
		return p, nil, err
	}
	return p, out, nil
}
