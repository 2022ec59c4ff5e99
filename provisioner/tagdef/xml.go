// Package tagdef decides whether a tag's definition, an XPath expression, matches what a machine said of its hardware. It is pure:
// documents and an expression in, a verdict out. Documents come from machines, which may be anybody's, and expressions from people
// who may err: both are bounded in size, nesting, work and time, and neither can make it panic. It does not know what tags are.
package tagdef

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The bounds of a document.
const (
	maxDocument = 4 << 20 // bytes
	maxDepth    = 256     // of elements in elements
	maxNodes    = 200_000 // elements, texts, comments and attributes
)

type kind uint8

const (
	rootKind kind = iota
	elementKind
	textKind
	commentKind
)

// node is one node of a document, in an arena: the numbers are places in it, 0 being the root, which is nobody's child or sibling.
type node struct {
	kind                      kind
	prefix, name              string
	text                      string
	parent, first, last       int32
	next, prev                int32
	attributes, attributesEnd int32
}

type attribute struct{ prefix, name, value string }

// Document is a parsed document.
type Document struct {
	nodes []node
	attrs []attribute
}

var errMalformed = errors.New("tagdef: the document is not well-formed")

func malformed(what string, at int) error {
	return fmt.Errorf("%w: %s at byte %d", errMalformed, what, at)
}

// Parse reads an XML document: elements, attributes, text, CDATA, comments, processing instructions. A document type declaration is
// refused, so that there are no entities but the five that XML has and numbers: nothing expands. The document keeps parts of src.
//
// This is not encoding/xml because ten thousand documents are read whenever a definition changes; a test holds the two together.
func Parse(src string) (*Document, error) { return parse(src, &Document{}) }

// parse fills a document that may have been used before.
func parse(src string, into *Document) (*Document, error) {
	if len(src) > maxDocument {
		return nil, fmt.Errorf("tagdef: the document has more than %d bytes", maxDocument)
	}
	if !utf8.ValidString(src) {
		return nil, malformed("text that is not UTF-8", 0)
	}
	src = strings.TrimPrefix(src, "\ufeff")
	if into.nodes == nil {
		into.nodes, into.attrs = make([]node, 0, 64+len(src)/40), make([]attribute, 0, 16+len(src)/64)
	}
	into.nodes, into.attrs = append(into.nodes[:0], node{}), into.attrs[:0]
	p := parser{src: src, doc: into}
	if err := p.run(); err != nil {
		return nil, err
	}
	return p.doc, nil
}

type parser struct {
	src   string
	at    int
	doc   *Document
	cur   int32 // the open element; 0 outside
	depth int
	seen  bool // the root element
}

func (p *parser) run() error {
	for p.at < len(p.src) {
		i := strings.IndexByte(p.src[p.at:], '<')
		if i < 0 {
			i = len(p.src) - p.at
		}
		if i > 0 {
			if err := p.text(p.src[p.at : p.at+i]); err != nil {
				return err
			}
			p.at += i
			continue
		}
		if err := p.markup(); err != nil {
			return err
		}
		if len(p.doc.nodes)+len(p.doc.attrs) > maxNodes {
			return fmt.Errorf("tagdef: the document has more than %d nodes", maxNodes)
		}
	}
	if p.cur != 0 || !p.seen {
		return malformed("unfinished element", p.at)
	}
	return nil
}

func (p *parser) text(s string) error {
	if p.cur == 0 {
		if strings.Trim(s, " \t\r\n") != "" {
			return malformed("text outside of the root element", p.at)
		}
		return nil
	}
	if strings.Contains(s, "]]>") {
		return malformed("]]> in text", p.at)
	}
	v, err := p.expand(s)
	if err != nil {
		return err
	}
	p.addText(v)
	return nil
}

// addText joins neighbouring texts: XPath knows no two in a row.
func (p *parser) addText(s string) {
	if s == "" {
		return
	}
	if last := p.doc.nodes[p.cur].last; last != 0 && p.doc.nodes[last].kind == textKind {
		p.doc.nodes[last].text += s
		return
	}
	p.doc.add(p.cur, node{kind: textKind, text: s})
}

// add appends a node to its parent's children.
func (d *Document) add(parent int32, n node) int32 {
	id := int32(len(d.nodes))
	up := &d.nodes[parent]
	n.parent, n.prev = parent, up.last
	if up.last != 0 {
		d.nodes[up.last].next = id
	} else {
		up.first = id
	}
	up.last = id
	d.nodes = append(d.nodes, n)
	return id
}

// markup reads what begins with "<".
func (p *parser) markup() error {
	rest := p.src[p.at:]
	switch {
	case strings.HasPrefix(rest, "<!--"):
		end := strings.Index(rest[4:], "--")
		if end < 0 || !strings.HasPrefix(rest[4+end:], "-->") {
			return malformed("comment", p.at)
		}
		if p.cur != 0 {
			p.doc.add(p.cur, node{kind: commentKind, text: rest[4 : 4+end]})
		}
		p.at += 4 + end + 3
	case strings.HasPrefix(rest, "<![CDATA["):
		end := strings.Index(rest, "]]>")
		if end < 0 || p.cur == 0 {
			return malformed("CDATA section", p.at)
		}
		if err := characters(rest[9:end], p.at); err != nil {
			return err
		}
		p.addText(newlines(rest[9:end]))
		p.at += end + 3
	case strings.HasPrefix(rest, "<!"):
		return fmt.Errorf("tagdef: a document with a type declaration is not read")
	case strings.HasPrefix(rest, "<?"):
		end := strings.Index(rest, "?>")
		if end < 0 {
			return malformed("processing instruction", p.at)
		}
		p.at += end + 2
	case strings.HasPrefix(rest, "</"):
		return p.closeTag()
	default:
		return p.openTag()
	}
	return nil
}

func (p *parser) closeTag() error {
	p.at += 2
	prefix, name, err := p.name()
	if err != nil {
		return err
	}
	p.space()
	n := &p.doc.nodes[p.cur]
	if p.cur == 0 || n.prefix != prefix || n.name != name || p.at >= len(p.src) || p.src[p.at] != '>' {
		return malformed("end tag", p.at)
	}
	p.at++
	p.cur = n.parent
	p.depth--
	return nil
}

func (p *parser) openTag() error {
	if p.cur == 0 && p.seen {
		return malformed("second root element", p.at)
	}
	if p.depth++; p.depth > maxDepth {
		return fmt.Errorf("tagdef: the document nests more than %d elements", maxDepth)
	}
	p.seen = true
	p.at++
	prefix, name, err := p.name()
	if err != nil {
		return err
	}
	first := int32(len(p.doc.attrs))
	for {
		spaced := p.space()
		if p.at >= len(p.src) {
			return malformed("start tag", p.at)
		}
		switch c := p.src[p.at]; {
		case c == '>' || c == '/':
			id := p.doc.add(p.cur, node{kind: elementKind, prefix: prefix, name: name, attributes: first, attributesEnd: int32(len(p.doc.attrs))})
			p.at++
			if c == '>' {
				p.cur = id
				return nil
			}
			if p.at >= len(p.src) || p.src[p.at] != '>' {
				return malformed("start tag", p.at)
			}
			p.at++
			p.depth--
			return nil
		case !spaced:
			return malformed("start tag", p.at)
		}
		if err := p.attribute(first); err != nil {
			return err
		}
	}
}

func (p *parser) attribute(first int32) error {
	prefix, name, err := p.name()
	if err != nil {
		return err
	}
	p.space()
	if p.at >= len(p.src) || p.src[p.at] != '=' {
		return malformed("attribute", p.at)
	}
	p.at++
	p.space()
	if p.at >= len(p.src) || p.src[p.at] != '"' && p.src[p.at] != '\'' {
		return malformed("attribute value", p.at)
	}
	quote := p.src[p.at]
	end := strings.IndexByte(p.src[p.at+1:], quote)
	if end < 0 {
		return malformed("attribute value", p.at)
	}
	raw := p.src[p.at+1 : p.at+1+end]
	if strings.IndexByte(raw, '<') >= 0 {
		return malformed("< in an attribute value", p.at)
	}
	if strings.ContainsAny(raw, "\t\n\r") {
		raw = strings.NewReplacer("\r\n", " ", "\t", " ", "\n", " ", "\r", " ").Replace(raw)
	}
	value, err := p.expand(raw)
	if err != nil {
		return err
	}
	p.at += end + 2
	if prefix == "xmlns" || prefix == "" && name == "xmlns" {
		return nil // a declaration is no attribute
	}
	// Elements have few attributes, but hostile ones may have many: a quadratic search is bounded.
	if int32(len(p.doc.attrs))-first >= 256 {
		return malformed("too many attributes", p.at)
	}
	for _, a := range p.doc.attrs[first:] {
		if a.prefix == prefix && a.name == name {
			return malformed("attribute given twice", p.at)
		}
	}
	p.doc.attrs = append(p.doc.attrs, attribute{prefix, name, value})
	return nil
}

func (p *parser) space() bool {
	start := p.at
	for p.at < len(p.src) && (p.src[p.at] == ' ' || p.src[p.at] == '\t' || p.src[p.at] == '\n' || p.src[p.at] == '\r') {
		p.at++
	}
	return p.at > start
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c >= 0x80
}

// name reads a name with at most one colon.
func (p *parser) name() (prefix, local string, err error) {
	start, colon := p.at, -1
	for p.at < len(p.src) && (nameByte(p.src[p.at]) || p.src[p.at] == ':') {
		if p.src[p.at] == ':' {
			if colon >= 0 {
				return "", "", malformed("name", p.at)
			}
			colon = p.at
		}
		p.at++
	}
	name := p.src[start:p.at]
	if colon >= 0 {
		prefix, name = p.src[start:colon], p.src[colon+1:p.at]
		if !goodName(prefix) {
			return "", "", malformed("name", start)
		}
	}
	if !goodName(name) {
		return "", "", malformed("name", start)
	}
	return prefix, name, nil
}

func goodName(s string) bool {
	return s != "" && s[0] != '-' && s[0] != '.' && (s[0] < '0' || s[0] > '9')
}

// expand replaces references and checks that only characters of XML are there.
func (p *parser) expand(s string) (string, error) {
	if err := characters(s, p.at); err != nil {
		return "", err
	}
	s = newlines(s)
	if strings.IndexByte(s, '&') < 0 {
		return s, nil
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '&')
		if i < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:i])
		end := strings.IndexByte(s[i:], ';')
		if end < 0 || end > 16 {
			return "", malformed("reference", p.at)
		}
		ref := s[i+1 : i+end]
		s = s[i+end+1:]
		if r, ok := map[string]string{"amp": "&", "lt": "<", "gt": ">", "quot": `"`, "apos": "'"}[ref]; ok {
			b.WriteString(r)
			continue
		}
		num, ok := strings.CutPrefix(ref, "#")
		base := 10
		if hex, isHex := strings.CutPrefix(num, "x"); isHex {
			num, base = hex, 16
		}
		n, err := strconv.ParseUint(num, base, 32)
		if !ok || err != nil || !character(rune(n)) || n > utf8.MaxRune {
			return "", malformed("reference", p.at)
		}
		b.WriteRune(rune(n))
	}
}

func newlines(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
}

func character(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= ' ' && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000 && r <= utf8.MaxRune
}

func characters(s string, at int) error {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0xef && i+2 < len(s) && s[i+1] == 0xbf && s[i+2] >= 0xbe {
			return malformed("character", at)
		}
	}
	return nil
}

// graft copies the children of a document's root below parent, under a prefix where they have none of their own.
func (d *Document) graft(parent int32, from *Document, prefix string) {
	type todo struct{ from, parent int32 }
	stack := []todo{}
	push := func(first, parent int32) {
		at := len(stack)
		for c := first; c != 0; c = from.nodes[c].next {
			stack = append(stack, todo{c, parent})
		}
		for i, j := at, len(stack)-1; i < j; i, j = i+1, j-1 { // the first child comes off the stack first
			stack[i], stack[j] = stack[j], stack[i]
		}
	}
	push(from.nodes[0].first, parent)
	for len(stack) > 0 {
		t := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		src := from.nodes[t.from]
		n := node{kind: src.kind, prefix: src.prefix, name: src.name, text: src.text, attributes: int32(len(d.attrs))}
		d.attrs = append(d.attrs, from.attrs[src.attributes:src.attributesEnd]...)
		n.attributesEnd = int32(len(d.attrs))
		if n.kind == elementKind && n.prefix == "" {
			n.prefix = prefix
		}
		id := d.add(t.parent, n)
		push(src.first, id)
	}
}
