package api

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// WriteJSON writes v as MAAS writes JSON: four spaces, text unescaped but for what JSON demands, a list that is empty as [] even
// when it is nil, and floats with their point. It writes as it goes, and knows the plan of each type after its first use;
// encoding/json would build the whole text first, and then copy it to indent it. Struct tags are encoding/json's (name and
// omitempty; embedded structs are not known), and so are Marshalers.
func WriteJSON(w io.Writer, v any) error {
	e := &jsonWriter{w: w, buf: make([]byte, 0, flushAt+4096)}
	if parts, ok := v.(Parts); ok {
		e.parts(parts)
	} else {
		e.value(reflect.ValueOf(v), 0)
	}
	e.flush()
	return e.err
}

const flushAt = 60 << 10

type jsonWriter struct {
	w   io.Writer
	buf []byte
	err error
}

func (e *jsonWriter) flush() {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *jsonWriter) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

type encodeFunc func(e *jsonWriter, v reflect.Value, depth int)

var encoders sync.Map // reflect.Type to encodeFunc

func encoderOf(t reflect.Type) encodeFunc {
	if f, ok := encoders.Load(t); ok {
		return f.(encodeFunc)
	}
	// A type may hold itself: leave a way in before looking inside.
	var ready sync.WaitGroup
	ready.Add(1)
	var f encodeFunc
	actual, loaded := encoders.LoadOrStore(t, encodeFunc(func(e *jsonWriter, v reflect.Value, depth int) {
		ready.Wait()
		f(e, v, depth)
	}))
	if loaded {
		return actual.(encodeFunc)
	}
	f = newEncoder(t)
	ready.Done()
	encoders.Store(t, f)
	return f
}

func (e *jsonWriter) value(v reflect.Value, depth int) {
	if !v.IsValid() {
		e.buf = append(e.buf, "null"...)
		return
	}
	encoderOf(v.Type())(e, v, depth)
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func newEncoder(t reflect.Type) encodeFunc {
	if t.Implements(marshaler) {
		return encodeMarshaler
	}
	if t.Implements(textMarshaler) {
		return func(e *jsonWriter, v reflect.Value, _ int) {
			if v.Kind() == reflect.Pointer && v.IsNil() {
				e.buf = append(e.buf, "null"...)
				return
			}
			b, err := v.Interface().(encoding.TextMarshaler).MarshalText()
			if err != nil {
				e.fail(err)
			}
			e.buf = appendString(e.buf, string(b))
		}
	}
	switch t.Kind() {
	case reflect.Bool:
		return func(e *jsonWriter, v reflect.Value, _ int) { e.buf = strconv.AppendBool(e.buf, v.Bool()) }
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(e *jsonWriter, v reflect.Value, _ int) { e.buf = strconv.AppendInt(e.buf, v.Int(), 10) }
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(e *jsonWriter, v reflect.Value, _ int) { e.buf = strconv.AppendUint(e.buf, v.Uint(), 10) }
	case reflect.Float32, reflect.Float64:
		return func(e *jsonWriter, v reflect.Value, _ int) { e.float(v.Float()) }
	case reflect.String:
		return func(e *jsonWriter, v reflect.Value, _ int) { e.buf = appendString(e.buf, v.String()) }
	case reflect.Interface:
		return func(e *jsonWriter, v reflect.Value, depth int) { e.value(v.Elem(), depth) }
	case reflect.Pointer:
		elem := encoderOf(t.Elem())
		return func(e *jsonWriter, v reflect.Value, depth int) {
			if v.IsNil() {
				e.buf = append(e.buf, "null"...)
				return
			}
			elem(e, v.Elem(), depth)
		}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return func(e *jsonWriter, v reflect.Value, _ int) {
				e.buf = append(e.buf, '"')
				e.buf = base64.StdEncoding.AppendEncode(e.buf, v.Bytes())
				e.buf = append(e.buf, '"')
			}
		}
		return listEncoder(encoderOf(t.Elem()))
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			return mapEncoder(encoderOf(t.Elem()))
		}
	case reflect.Struct:
		return structEncoder(t)
	}
	return func(e *jsonWriter, _ reflect.Value, _ int) { e.fail(fmt.Errorf("api: no JSON for %s", t)) }
}

func encodeMarshaler(e *jsonWriter, v reflect.Value, depth int) {
	if (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && v.IsNil() {
		e.buf = append(e.buf, "null"...)
		return
	}
	b, err := v.Interface().(json.Marshaler).MarshalJSON()
	if err != nil {
		e.fail(err)
		return
	}
	if len(b) > 0 && (b[0] == '{' || b[0] == '[') {
		var out bytes.Buffer
		if err := json.Indent(&out, b, strings.Repeat("    ", depth), "    "); err != nil {
			e.fail(err)
		}
		b = out.Bytes()
	}
	e.buf = append(e.buf, b...)
}

func (e *jsonWriter) float(f float64) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		e.fail(fmt.Errorf("api: %v is no JSON number", f))
		return
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		format = 'e'
	}
	from := len(e.buf)
	e.buf = strconv.AppendFloat(e.buf, f, format, -1, 64)
	if format == 'f' && !bytes.ContainsRune(e.buf[from:], '.') {
		e.buf = append(e.buf, ".0"...)
	}
}

// indents are the line breaks of the first depths.
var indents = func() (all [12]string) {
	for i := range all {
		all[i] = "\n" + strings.Repeat("    ", i)
	}
	return all
}()

func (e *jsonWriter) line(depth int) {
	if depth < len(indents) {
		e.buf = append(e.buf, indents[depth]...)
		return
	}
	e.buf = append(append(e.buf, '\n'), strings.Repeat("    ", depth)...)
}

// Parts is a list that comes a part at a time: each call answers the next elements as a slice, and nil at the end.
type Parts func() (any, error)

// parts writes a list part by part, as if it had come whole.
func (e *jsonWriter) parts(next Parts) {
	n := 0
	e.buf = append(e.buf, '[')
	for e.err == nil {
		part, err := next()
		if err != nil {
			e.fail(err)
			return
		}
		if part == nil {
			break
		}
		v := reflect.ValueOf(part)
		elem := encoderOf(v.Type().Elem())
		for i := range v.Len() {
			if n++; n > 1 {
				e.buf = append(e.buf, ',')
			}
			e.line(1)
			elem(e, v.Index(i), 1)
			if len(e.buf) >= flushAt {
				e.flush()
			}
			if e.err != nil {
				return
			}
		}
	}
	if n > 0 {
		e.line(0)
	}
	e.buf = append(e.buf, ']')
}

func listEncoder(elem encodeFunc) encodeFunc {
	return func(e *jsonWriter, v reflect.Value, depth int) {
		n := v.Len()
		if n == 0 {
			e.buf = append(e.buf, "[]"...)
			return
		}
		e.buf = append(e.buf, '[')
		for i := range n {
			if i > 0 {
				e.buf = append(e.buf, ',')
			}
			e.line(depth + 1)
			elem(e, v.Index(i), depth+1)
			if len(e.buf) >= flushAt {
				e.flush()
			}
			if e.err != nil {
				return
			}
		}
		e.line(depth)
		e.buf = append(e.buf, ']')
	}
}

func mapEncoder(elem encodeFunc) encodeFunc {
	return func(e *jsonWriter, v reflect.Value, depth int) {
		if v.Len() == 0 {
			e.buf = append(e.buf, "{}"...)
			return
		}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		e.buf = append(e.buf, '{')
		for i, k := range keys {
			if i > 0 {
				e.buf = append(e.buf, ',')
			}
			e.line(depth + 1)
			e.buf = append(appendString(e.buf, k.String()), ": "...)
			elem(e, v.MapIndex(k), depth+1)
		}
		e.line(depth)
		e.buf = append(e.buf, '}')
	}
}

type jsonField struct {
	index     int
	key       string // with its quotes and colon
	omitEmpty bool
	encode    encodeFunc
}

func structEncoder(t reflect.Type) encodeFunc {
	var fields []jsonField
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if f.Anonymous && name == "" {
			return func(e *jsonWriter, _ reflect.Value, _ int) { e.fail(fmt.Errorf("api: %s embeds %s", t, f.Name)) }
		}
		if name == "" {
			name = f.Name
		}
		fields = append(fields, jsonField{i, string(appendString(nil, name)) + ": ", strings.Contains(opts, "omitempty"), encoderOf(f.Type)})
	}
	return func(e *jsonWriter, v reflect.Value, depth int) {
		e.buf = append(e.buf, '{')
		first := true
		for i := range fields {
			f := &fields[i]
			x := v.Field(f.index)
			if f.omitEmpty && emptyValue(x) {
				continue
			}
			if !first {
				e.buf = append(e.buf, ',')
			}
			first = false
			e.line(depth + 1)
			e.buf = append(e.buf, f.key...)
			f.encode(e, x, depth+1)
		}
		if !first {
			e.line(depth)
		}
		e.buf = append(e.buf, '}')
	}
}

func emptyValue(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

const hexDigits = "0123456789abcdef"

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
