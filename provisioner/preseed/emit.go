package preseed

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The bounds of a document that is read or written.
const (
	MaxTemplate = 64 << 10  // of an operator's text
	MaxOutput   = 256 << 10 // of what one renders
	maxDocument = 4 << 20   // of a document with everything in it
	maxNodes    = 100_000   // of a YAML document, aliases followed
)

// plainText is a text that every reader of YAML, 1.1 or 1.2, takes for itself without quotes.
var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9/._-]*$`)

// notText are words that some reader takes for something other than text.
var notText = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null|nan|inf)$`)

// blockText is a text of several lines that reads the same from a block: nothing but printable ASCII, no space before or after a line, no
// empty line first or last.
var blockText = regexp.MustCompile(`^[!-~]([ -~]*[!-~])?(\n|\n[!-~]([ -~]*[!-~])?)*\n$`)

// Marshal writes a value as YAML that PyYAML and every other reader understands as it was: texts stand in double quotes unless they
// cannot be anything else.
func Marshal(v any) ([]byte, error) {
	p, err := plain(reflect.ValueOf(v))
	if err != nil {
		return nil, err
	}
	n, err := node(p)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	if b.Len() > maxDocument {
		return nil, fmt.Errorf("the document is larger than %d bytes", maxDocument)
	}
	return b.Bytes(), nil
}

// plain turns structs, by their yaml tags, and everything else into mappings, lists and scalars. The YAML library's own way goes through a
// text that it does not always read back.
func plain(v reflect.Value) (any, error) {
	switch v.Kind() {
	case reflect.Invalid:
		return nil, nil
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil, nil
		}
		return plain(v.Elem())
	case reflect.String:
		return v.String(), nil
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return v.Uint(), nil
	case reflect.Float32, reflect.Float64:
		return v.Float(), nil
	case reflect.Slice, reflect.Array:
		out := make([]any, v.Len())
		for i := range out {
			x, err := plain(v.Index(i))
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	case reflect.Map:
		out := make(map[string]any, v.Len())
		for k, e := range v.Seq2() {
			x, err := plain(e)
			if err != nil {
				return nil, err
			}
			out[k.String()] = x
		}
		return out, nil
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			return t, nil
		}
		out := map[string]any{}
		for i := range v.NumField() {
			name, opts, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			f := v.Field(i)
			if empty := f.IsZero() || (f.Kind() == reflect.Slice || f.Kind() == reflect.Map) && f.Len() == 0; empty && strings.Contains(opts, "omitempty") {
				continue
			}
			x, err := plain(f)
			if err != nil {
				return nil, err
			}
			out[name] = x
		}
		return out, nil
	}
	return nil, fmt.Errorf("a %s has no place in a document", v.Kind())
}

// node writes what plain answers; mappings by their keys.
func node(v any) (*yaml.Node, error) {
	scalar := func(tag, value string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}, nil
	}
	switch v := v.(type) {
	case nil:
		return scalar("!!null", "null")
	case bool:
		return scalar("!!bool", strconv.FormatBool(v))
	case int64:
		return scalar("!!int", strconv.FormatInt(v, 10))
	case uint64:
		return scalar("!!int", strconv.FormatUint(v, 10))
	case float64:
		return scalar("!!float", floatText(v))
	case time.Time:
		return scalar("!!timestamp", v.Format(time.RFC3339Nano))
	case string:
		if !utf8.ValidString(v) {
			return nil, errors.New("a text is not UTF-8")
		}
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v, Style: yaml.DoubleQuotedStyle}
		switch {
		case plainText.MatchString(v) && !notText.MatchString(v):
			n.Style = 0
		case blockText.MatchString(v) && !strings.Contains(v, "\n\n\n"):
			n.Style = yaml.LiteralStyle
		}
		return n, nil
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if len(v) == 0 {
			n.Style = yaml.FlowStyle
		}
		for _, e := range v {
			c, err := node(e)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		return n, nil
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		if len(v) == 0 {
			n.Style = yaml.FlowStyle
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			key, err := node(k)
			if err != nil {
				return nil, err
			}
			if key.Style == yaml.LiteralStyle {
				key.Style = yaml.DoubleQuotedStyle
			}
			value, err := node(v[k])
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, key, value)
		}
		return n, nil
	}
	return nil, fmt.Errorf("a %T has no place in a document", v)
}

// floatText is a number with a point, by which YAML 1.1 knows them.
func floatText(f float64) string {
	switch {
	case math.IsNaN(f):
		return ".nan"
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	}
	text := strconv.FormatFloat(f, 'g', -1, 64)
	mantissa, exponent, scientific := strings.Cut(text, "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	if scientific {
		return mantissa + "e" + exponent
	}
	return mantissa
}

// plainTags are the types that a document may name; others are programs for somebody's reader.
var plainTags = map[string]bool{"": true, "!": true, "!!str": true, "!!int": true, "!!float": true, "!!bool": true, "!!null": true, "!!map": true, "!!seq": true, "!!binary": true,
	"!!timestamp": true, "!!merge": true}

// readMapping reads an operator's document: one YAML mapping with texts for keys, of bounded size, without types of its own.
func readMapping(text []byte) (map[string]any, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var n yaml.Node
	if err := dec.Decode(&n); err != nil {
		return nil, fmt.Errorf("this is no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return nil, errors.New("there is a second YAML document: one is read")
	}
	left := maxNodes
	if err := countNodes(&n, &left, 0); err != nil {
		return nil, err
	}
	var m map[string]any
	if err := n.Decode(&m); err != nil {
		return nil, fmt.Errorf("this is no YAML mapping: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if m == nil {
		return nil, errors.New("this is no YAML mapping: it is empty")
	}
	return textKeys(m)
}

func countNodes(n *yaml.Node, left *int, depth int) error {
	if *left--; *left < 0 || depth > 100 {
		return errors.New("this YAML is too large or too deep when its aliases are followed")
	}
	if !plainTags[n.ShortTag()] {
		return fmt.Errorf("line %d: the YAML type %s is not one of the plain ones", n.Line, n.Tag)
	}
	if n.Kind == yaml.AliasNode {
		return countNodes(n.Alias, left, depth+1)
	}
	for _, c := range n.Content {
		if err := countNodes(c, left, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// textKeys makes sure that all keys are texts, all the way down: the readers' configurations have no others.
func textKeys(m map[string]any) (map[string]any, error) {
	for k, v := range m {
		x, err := textKeysIn(v)
		if err != nil {
			return nil, err
		}
		m[k] = x
	}
	return m, nil
}

func textKeysIn(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		return textKeys(v)
	case map[any]any:
		for k := range v {
			if _, ok := k.(string); !ok {
				return nil, fmt.Errorf("the key %v is not a text: write it in quotes", k)
			}
		}
	case []any:
		for i := range v {
			x, err := textKeysIn(v[i])
			if err != nil {
				return nil, err
			}
			v[i] = x
		}
	}
	return v, nil
}

// asMapping turns a struct into the mapping that its YAML is.
func asMapping(v any) (map[string]any, error) {
	p, err := plain(reflect.ValueOf(v))
	m, _ := p.(map[string]any)
	return m, err
}

// Merge lays one configuration over another as curtin does: mappings are merged, anything else is replaced. A null removes what is below.
func Merge(under, over map[string]any) map[string]any {
	out := make(map[string]any, len(under)+len(over))
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		if v == nil {
			delete(out, k)
			continue
		}
		below, isMap := out[k].(map[string]any)
		if above, ok := v.(map[string]any); ok && isMap {
			out[k] = Merge(below, above)
			continue
		}
		out[k] = v
	}
	return out
}

// shellWord makes one word of the shell of any text.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// oneLine refuses a value that would not stay in its line.
func oneLine(what, s string) (string, error) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' }) {
		return "", fmt.Errorf("%s has a character that is not allowed in a line", what)
	}
	return s, nil
}
