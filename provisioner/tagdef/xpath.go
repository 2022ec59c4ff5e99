package tagdef

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/antchfx/xpath"
)

// The bounds of an expression and of one evaluation.
const (
	maxExpression = 4096 // bytes
	maxNesting    = 64   // of brackets
	maxSteps      = 2_000_000
	maxTime       = 4 * time.Second // the steps are the bound: a busy machine must not change a verdict
	clockEvery    = 1024            // steps between two looks at the clock
)

// ErrTooMuch is the error of an evaluation that was stopped: the expression asks for too much work on this document.
var ErrTooMuch = errors.New("tagdef: the evaluation takes too long")

// Expr is a compiled expression. It is not safe for concurrent use.
type Expr struct {
	text  string
	x     *xpath.Expr
	lshw  bool // it names elements of the namespaces
	steps int
	until time.Time
	// Documents of earlier evaluations, whose space is used again.
	merged, own Document
}

// Compile checks and compiles an expression of XPath 1.0. Its error says what is wrong with it.
func Compile(text string) (e *Expr, err error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("longer than %d characters", maxExpression)
	}
	if err := surface(text); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			e, err = nil, fmt.Errorf("%v", p)
		}
	}()
	x, err := xpath.Compile(text)
	if err != nil {
		return nil, err
	}
	e = &Expr{text: text, x: x, lshw: strings.Contains(text, "lshw:")}
	// What the compiler lets pass and the evaluation stumbles over, such as a wrong kind of argument, shows on a document as well.
	if _, err := e.Match(sample, ""); err != nil {
		return nil, err
	}
	return e, nil
}

const sample = `<list><node id="x" class="system"><description>y</description><size units="bytes">1</size></node></list>`

// surface says what is wrong with an expression as far as its brackets, quotes and characters show.
func surface(expr string) error {
	var stack []rune
	var quote rune
	for _, r := range expr {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote = r
		case r == '(':
			stack = append(stack, ')')
		case r == '[':
			stack = append(stack, ']')
		case r == ')' || r == ']':
			if len(stack) == 0 || stack[len(stack)-1] != r {
				return fmt.Errorf("unbalanced %c", r)
			}
			stack = stack[:len(stack)-1]
		case r < ' ' && r != '\t' && r != '\n' && r != '\r':
			return errors.New("control character")
		}
		if len(stack) > maxNesting {
			return fmt.Errorf("brackets nest more than %d deep", maxNesting)
		}
	}
	switch {
	case quote != 0:
		return errors.New("unterminated literal")
	case len(stack) > 0:
		return fmt.Errorf("missing %c", stack[len(stack)-1])
	case strings.TrimSpace(expr) == "":
		return errors.New("empty expression")
	}
	return sequence(expr)
}

// sequence says where two operands stand without an operator between them, which the compiler would cut off in silence, and which
// axis there is not.
func sequence(expr string) error {
	operand, word := false, "" // what came last: the end of an operand; and, when it was a name, the name
	for i := 0; i < len(expr); {
		c := expr[i]
		start := i
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case c == '\'' || c == '"':
			i += strings.IndexByte(expr[i+1:], c) + 2
		case c >= '0' && c <= '9' || c == '.' && i+1 < len(expr) && expr[i+1] >= '0' && expr[i+1] <= '9':
			for i < len(expr) && (expr[i] >= '0' && expr[i] <= '9' || expr[i] == '.') {
				i++
			}
		case c == '.':
			for i < len(expr) && expr[i] == '.' {
				i++
			}
		case nameByte(c) && c != '-':
			for i < len(expr) && (nameByte(expr[i]) || expr[i] == ':' && !strings.HasPrefix(expr[i:], "::") && (i == 0 || expr[i-1] != ':')) {
				i++
			}
			name := expr[start:i]
			if operand {
				if name != "and" && name != "or" && name != "div" && name != "mod" {
					return fmt.Errorf("unexpected %q", name)
				}
				operand, word = false, ""
				continue
			}
			operand, word = true, name
			continue
		default:
			i++
			switch c {
			case '*':
				operand, word = !operand, ""
			case ']', ')':
				operand, word = true, ""
			case ':':
				if i < len(expr) && expr[i] == ':' {
					i++
					if !axes[word] {
						return fmt.Errorf("unknown axis %s", word)
					}
				}
				operand, word = false, ""
			case '(':
				if operand && word == "" {
					return errors.New("unexpected (")
				}
				operand, word = false, ""
			case '@', '$':
				if operand {
					return fmt.Errorf("unexpected %c", c)
				}
			default:
				operand, word = false, ""
			}
			continue
		}
		if operand {
			return fmt.Errorf("unexpected %q", expr[start:i])
		}
		operand, word = true, ""
	}
	return nil
}

var axes = map[string]bool{"ancestor": true, "ancestor-or-self": true, "attribute": true, "child": true, "descendant": true, "descendant-or-self": true,
	"following": true, "following-sibling": true, "namespace": true, "parent": true, "preceding": true, "preceding-sibling": true, "self": true}

// Match tells whether the expression holds for a machine with these two documents; either may be empty. They are looked at as one:
// lshw's elements have no namespace, LLDP's are in "lldp", and lshw's are there once more in "lshw". An expression that picks
// nodes and finds none there is tried on the LLDP document alone, without a namespace. False, "", 0, NaN and no nodes are no.
func (e *Expr) Match(lshw, lldp string) (bool, error) {
	e.steps, e.until = maxSteps, time.Now().Add(maxTime)
	merged, own, err := e.documents(lshw, lldp)
	if err != nil {
		return false, err
	}
	yes, nodes, err := e.evaluate(merged)
	if err != nil || yes || !nodes || own == nil {
		return yes, err
	}
	yes, _, err = e.evaluate(own)
	return yes, err
}

// documents makes the document that both are seen as, and LLDP's own.
func (e *Expr) documents(lshw, lldp string) (merged, own *Document, err error) {
	lldp, lshw = strings.TrimSpace(lldp), strings.TrimSpace(lshw)
	if lshw == "" {
		lshw = "<list/>"
	}
	if merged, err = parse(lshw, &e.merged); err != nil {
		return nil, nil, err
	}
	root := merged.nodes[0].first
	for merged.nodes[root].kind != elementKind {
		root = merged.nodes[root].next
	}
	if e.lshw {
		alone := *merged
		alone.nodes = append([]node(nil), merged.nodes...)
		merged.graft(root, &alone, "lshw")
	}
	if lldp != "" {
		if own, err = parse(lldp, &e.own); err != nil {
			return nil, nil, err
		}
		merged.graft(root, own, "lldp")
	}
	return merged, own, nil
}

func (e *Expr) evaluate(d *Document) (yes, nodes bool, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			if errors.Is(p, ErrTooMuch) {
				yes, err = false, ErrTooMuch
				return
			}
			yes, err = false, fmt.Errorf("%v", p)
		default:
			yes, err = false, fmt.Errorf("%v", p)
		}
	}()
	switch v := e.x.Evaluate(&navigator{e: e, d: d, attr: -1}).(type) {
	case bool:
		return v, false, nil
	case float64:
		return v != 0 && !math.IsNaN(v), false, nil
	case string:
		return v != "", false, nil
	case *xpath.NodeIterator:
		return v.MoveNext(), true, nil
	default:
		return false, false, fmt.Errorf("the expression has a value of an unknown kind")
	}
}

// step is called for each movement of an evaluation, which it ends when there were too many.
func (e *Expr) step(n int) {
	e.steps -= n
	if e.steps < 0 || e.steps%clockEvery == 0 && time.Now().After(e.until) {
		e.steps = 0
		panic(ErrTooMuch)
	}
}

// navigator is a place in a document: a node, or one of its attributes.
type navigator struct {
	e    *Expr
	d    *Document
	at   int32
	attr int32 // place among the document's attributes; -1 on the node itself
}

func (n *navigator) node() *node { return &n.d.nodes[n.at] }

// NodeType implements xpath.NodeNavigator, as do the methods below.
func (n *navigator) NodeType() xpath.NodeType {
	if n.attr >= 0 {
		return xpath.AttributeNode
	}
	return [...]xpath.NodeType{xpath.RootNode, xpath.ElementNode, xpath.TextNode, xpath.CommentNode}[n.node().kind]
}

// LocalName is a name without its prefix.
func (n *navigator) LocalName() string {
	if n.attr >= 0 {
		return n.d.attrs[n.attr].name
	}
	return n.node().name
}

// Prefix is the prefix of a name.
func (n *navigator) Prefix() string {
	if n.attr >= 0 {
		return n.d.attrs[n.attr].prefix
	}
	return n.node().prefix
}

// Value is the text of a node with all below it.
func (n *navigator) Value() string {
	if n.attr >= 0 {
		return n.d.attrs[n.attr].value
	}
	x := n.node()
	if x.kind == textKind || x.kind == commentKind {
		n.e.step(1 + len(x.text)/64)
		return x.text
	}
	if x.first == 0 {
		return ""
	}
	if c := &n.d.nodes[x.first]; x.first == x.last && c.kind == textKind {
		n.e.step(1 + len(c.text)/64)
		return c.text
	}
	var b strings.Builder
	for i := x.first; i != 0; i = n.following(i) {
		c := &n.d.nodes[i]
		n.e.step(1 + len(c.text)/64)
		if c.kind == textKind {
			b.WriteString(c.text)
		}
	}
	return b.String()
}

// following is the next node in document order below n's own.
func (n *navigator) following(i int32) int32 {
	if c := n.d.nodes[i].first; c != 0 {
		return c
	}
	for i != n.at {
		if s := n.d.nodes[i].next; s != 0 {
			return s
		}
		i = n.d.nodes[i].parent
	}
	return 0
}

// Copy is another navigator at the same place.
func (n *navigator) Copy() xpath.NodeNavigator {
	n.e.step(1)
	c := *n
	return &c
}

// MoveToRoot goes to the document.
func (n *navigator) MoveToRoot() { n.at, n.attr = 0, -1 }

// MoveToParent goes up.
func (n *navigator) MoveToParent() bool {
	n.e.step(1)
	if n.attr >= 0 {
		n.attr = -1
		return true
	}
	if n.at == 0 {
		return false
	}
	n.at = n.node().parent
	return true
}

// MoveToNextAttribute goes to the first attribute of a node, or from an attribute to the next.
func (n *navigator) MoveToNextAttribute() bool {
	n.e.step(1)
	x := n.node()
	switch {
	case n.attr < 0 && x.attributes < x.attributesEnd:
		n.attr = x.attributes
	case n.attr >= 0 && n.attr+1 < x.attributesEnd:
		n.attr++
	default:
		return false
	}
	return true
}

func (n *navigator) moveTo(i int32) bool {
	n.e.step(1)
	if n.attr >= 0 || i == 0 {
		return false
	}
	n.at = i
	return true
}

// MoveToChild goes to the first child.
func (n *navigator) MoveToChild() bool { return n.moveTo(n.node().first) }

// MoveToFirst goes to the first sibling.
func (n *navigator) MoveToFirst() bool {
	if n.attr >= 0 || n.at == 0 || n.node().prev == 0 {
		return false
	}
	return n.moveTo(n.d.nodes[n.node().parent].first)
}

// MoveToNext goes to the next sibling.
func (n *navigator) MoveToNext() bool { return n.moveTo(n.node().next) }

// MoveToPrevious goes to the sibling before.
func (n *navigator) MoveToPrevious() bool { return n.moveTo(n.node().prev) }

// MoveTo goes to where another navigator of the same document is.
func (n *navigator) MoveTo(other xpath.NodeNavigator) bool {
	o, ok := other.(*navigator)
	if !ok || o.d != n.d {
		return false
	}
	n.at, n.attr = o.at, o.attr
	return true
}
