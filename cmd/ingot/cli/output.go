package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api/client"
)

// print shows an answer in the form that was asked for.
func (c *call) print(ans client.Answer) error {
	if ans.ContentType != "application/json" {
		return c.printRaw(ans.Body)
	}
	if c.output == "json" {
		var b bytes.Buffer
		if err := json.Indent(&b, ans.Body, "", "    "); err != nil {
			return fmt.Errorf("the answer is no JSON: %w", err)
		}
		b.WriteByte('\n')
		_, err := c.out.Write(b.Bytes())
		return err
	}
	n, err := parse(ans.Body)
	if err != nil {
		return fmt.Errorf("the answer is no JSON: %w", err)
	}
	if c.output == "yaml" {
		e := yaml.NewEncoder(c.out)
		e.SetIndent(2)
		if err := e.Encode(n); err != nil {
			return err
		}
		return e.Close()
	}
	t := tables{out: c.out, wide: c.output == "wide"}
	kind := strings.TrimLeft(c.op.Returns, "[]*")
	if page := child(n, "events"); kind == "EventPage" && page != nil {
		n, kind = page, "Event"
	}
	switch {
	case n.Kind == yaml.SequenceNode:
		return t.list(n.Content, kind)
	case n.Kind == yaml.MappingNode:
		return t.object(n, kind)
	case isNull(n):
		return c.done()
	}
	_, err = fmt.Fprintln(c.out, clean(n.Value))
	return err
}

// done tells a success that has nothing to show.
func (c *call) done() error {
	if c.output == "table" || c.output == "wide" {
		_, err := fmt.Fprintln(c.out, "Done.")
		return err
	}
	return nil
}

// printRaw passes on a text or a file.
func (c *call) printRaw(b []byte) error {
	if len(b) == 0 {
		return c.done()
	}
	isText := utf8.Valid(b) && bytes.IndexByte(b, 0) < 0
	terminal := false
	if f, ok := c.out.(*os.File); ok {
		st, err := f.Stat()
		terminal = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	if terminal && !isText {
		return c.usagef("the answer is no text (%d bytes): send it to a file with > FILE", len(b))
	}
	if terminal {
		b = []byte(cleanLines(string(b)))
	}
	if _, err := c.out.Write(b); err != nil {
		return err
	}
	if c.op.Returns == "text" && b[len(b)-1] != '\n' {
		_, err := c.out.Write([]byte{'\n'})
		return err
	}
	return nil
}

// clean makes a text safe for a terminal and a table: no control characters, one line.
func clean(s string) string {
	s = strings.TrimSpace(s)
	if first, _, more := strings.Cut(s, "\n"); more {
		s = first + " …"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' {
			return '\ufffd'
		}
		return r
	}, s)
}

// cleanLines is clean for a text of many lines.
func cleanLines(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '\ufffd'
		}
		return r
	}, s)
}

// tables writes objects for people to read.
type tables struct {
	out  io.Writer
	wide bool
}

// list writes objects as a table, and plain values one a line.
func (t tables) list(items []*yaml.Node, kind string) error {
	if len(items) == 0 {
		_, err := fmt.Fprintln(t.out, "None.")
		return err
	}
	if items[0].Kind != yaml.MappingNode {
		for _, n := range items {
			if _, err := fmt.Fprintln(t.out, cell(n)); err != nil {
				return err
			}
		}
		return nil
	}
	columns := columnsOf(items, kind)
	if !t.wide {
		var narrow []column
		for _, c := range columns {
			if !c.wide {
				narrow = append(narrow, c)
			}
		}
		columns = narrow
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	row := func(cells []string) {
		// The last cell gets no padding: a line ends where its text ends.
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	var titles []string
	for _, c := range columns {
		titles = append(titles, c.title)
	}
	row(titles)
	for _, n := range items {
		var cells []string
		for _, c := range columns {
			s := c.of(n)
			if r := []rune(s); len(r) > 60 && !t.wide {
				s = string(r[:59]) + "…"
			}
			if s == "" {
				s = "-"
			}
			cells = append(cells, s)
		}
		row(cells)
	}
	return w.Flush()
}

// object writes one object as lines of a name and a value, and the lists in it as tables.
func (t tables) object(n *yaml.Node, kind string) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for _, c := range columnsOf([]*yaml.Node{n}, kind) {
		s := c.of(n)
		if s == "" {
			s = "-"
		}
		fmt.Fprintf(w, "%s\t%s\n", c.title, s)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, s := range layouts[kind].sections {
		l := child(n, s.key)
		if isNull(l) || l.Kind != yaml.SequenceNode || len(l.Content) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(t.out, "\n%s\n", s.title); err != nil {
			return err
		}
		if err := t.list(l.Content, s.kind); err != nil {
			return err
		}
	}
	return nil
}

// columnsOf are a type's columns; of an unknown type, all keys that the objects have.
func columnsOf(items []*yaml.Node, kind string) []column {
	if l, ok := layouts[kind]; ok {
		for _, c := range l.columns { // an object of another server may have another shape
			for _, n := range items {
				if c.of(n) != "" {
					return l.columns
				}
			}
		}
	}
	var columns []column
	seen := map[string]bool{"resource_uri": true}
	for _, n := range items {
		for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
			k := n.Content[i].Value
			if seen[k] {
				continue
			}
			seen[k] = true
			columns = append(columns, column{title: strings.ToUpper(strings.ReplaceAll(clean(k), "_", " ")), paths: []string{"\x00" + k}, wide: len(columns) >= 8})
		}
	}
	return columns
}

// of is the cell of an object.
func (c column) of(n *yaml.Node) string {
	for _, path := range c.paths {
		keys := strings.Split(path, ".")
		if k, ok := strings.CutPrefix(path, "\x00"); ok {
			keys = []string{k} // of a foreign object, as it is
		}
		var parts []string
		for _, v := range all(n, keys) {
			if s := c.unitOf(v); s != "" {
				parts = append(parts, s)
			}
		}
		if len(parts) > 0 {
			return strings.Join(parts, ", ")
		}
	}
	return ""
}

// unitOf is a value as people read it.
func (c column) unitOf(n *yaml.Node) string {
	f, err := strconv.ParseFloat(n.Value, 64)
	switch {
	case n.Kind != yaml.ScalarNode:
	case c.unit == "flag" && n.Value == "true":
		return "yes"
	case c.unit == "flag" && n.Value == "false":
		return "no"
	case err != nil:
	case c.unit == "bytes":
		return human(f, 1000, "B", "kB", "MB", "GB", "TB", "PB")
	case c.unit == "mb":
		return human(f, 1000, "MB", "GB", "TB", "PB")
	case c.unit == "mib":
		return human(f, 1024, "MiB", "GiB", "TiB")
	}
	return cell(n)
}

func human(v, step float64, units ...string) string {
	if v == 0 {
		return "0"
	}
	i := 0
	for i+1 < len(units) && v >= step {
		v, i = v/step, i+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") + " " + units[i]
}

// cell is any value in short: an object by its name.
func cell(n *yaml.Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		if isNull(n) {
			return ""
		}
		return clean(n.Value)
	case yaml.SequenceNode:
		var parts []string
		for _, c := range n.Content {
			parts = append(parts, cell(c))
		}
		return strings.Join(parts, ", ")
	case yaml.MappingNode:
		for _, k := range []string{"name", "hostname", "username", "cidr", "ip", "system_id", "id"} {
			if s := text(n, k); s != "" {
				return clean(s)
			}
		}
		var parts []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			parts = append(parts, clean(n.Content[i].Value)+"="+cell(n.Content[i+1]))
		}
		return strings.Join(parts, " ")
	}
	return ""
}

// serverText is what the server said about a failure, on one line.
func serverText(err error) string {
	var e *client.Error
	if errors.As(err, &e) && strings.TrimSpace(e.Text) != "" {
		return clean(e.Text)
	}
	return clean(err.Error())
}
