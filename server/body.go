package server

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// keyvals are keys and values in the order they came. Unlike net/url's parser, theirs takes any text: what is no valid escape stays
// as it is, as MAAS has it, and no body can make it fail.
type keyvals struct {
	keys   []string // each once, in the order of its first coming
	values url.Values
}

// maxKeys bounds the parts of one body, so that a small body cannot become a huge map.
const maxKeys = 10000

func (p *keyvals) add(key, value string) {
	if p.values == nil {
		p.values = url.Values{}
	}
	if _, ok := p.values[key]; !ok {
		p.keys = append(p.keys, key)
	}
	p.values[key] = append(p.values[key], value)
}

// Get is the first value of a key, or "".
func (p keyvals) Get(key string) string { return p.values.Get(key) }

func parsePairs(s string) (p keyvals) {
	for n := 0; s != "" && n < maxKeys; n++ {
		var pair string
		pair, s, _ = strings.Cut(s, "&")
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		p.add(unescape(k), unescape(v))
	}
	return p
}

func unescape(s string) string {
	if strings.ContainsAny(s, "%+") {
		if u, err := url.QueryUnescape(s); err == nil {
			s = u
		} else {
			s = lenientUnescape(strings.ReplaceAll(s, "+", " "))
		}
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func lenientUnescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if u, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(u)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func mediaType(req *http.Request) (string, map[string]string) {
	text := req.Header.Get("Content-Type")
	t, params, err := mime.ParseMediaType(text)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return "", nil
	}
	if t == "multipart/form-data" && params["boundary"] == "" {
		// Python's boundaries begin with "=", and not every client puts them in quotes as they must be.
		_, boundary, _ := strings.Cut(text, "boundary=")
		boundary, _, _ = strings.Cut(boundary, ";")
		params = map[string]string{"boundary": strings.Trim(strings.TrimSpace(boundary), `"`)}
	}
	return t, params
}

func isForm(req *http.Request) bool {
	t, _ := mediaType(req)
	return t == "application/x-www-form-urlencoded"
}

func badRequest(text string) error { return wireError{status: http.StatusBadRequest, text: text} }

// readBody takes the body of a POST or PUT apart, whatever its form, into q.form and q.files. It also sets the request's
// PostForm, where the OAuth check looks for parameters.
func (q *request) readBody(req *http.Request, limit int64) error {
	q.read = true
	if req.Body == nil || req.Method != http.MethodPost && req.Method != http.MethodPut {
		return nil
	}
	if req.ContentLength > limit {
		return tooLarge(limit)
	}
	body := http.MaxBytesReader(nil, req.Body, limit)
	err := q.parseBody(req, body)
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return tooLarge(limit)
	}
	req.PostForm = q.form.values
	if req.PostForm == nil {
		req.PostForm = url.Values{}
	}
	return err
}

func tooLarge(limit int64) error {
	return wireError{status: http.StatusRequestEntityTooLarge, text: fmt.Sprintf("The request body is larger than %d bytes.", limit)}
}

func (q *request) parseBody(req *http.Request, body io.Reader) error {
	t, params := mediaType(req)
	switch t {
	case "application/x-www-form-urlencoded":
		b, err := io.ReadAll(body)
		if err != nil {
			return readError(err)
		}
		q.form = parsePairs(string(b))
	case "multipart/form-data":
		if params["boundary"] == "" {
			return badRequest("Bad Request")
		}
		return q.parseMultipart(multipart.NewReader(body, params["boundary"]))
	case "application/json":
		b, err := io.ReadAll(body)
		if err != nil {
			return readError(err)
		}
		if len(bytes.TrimSpace(b)) == 0 {
			return nil
		}
		return q.parseJSON(b)
	}
	return nil // any other type: the body is ignored
}

// readError keeps the one error that has its own answer; a body that breaks off is the client's fault.
func readError(err error) error {
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return err
	}
	return badRequest("Bad Request")
}

func (q *request) parseMultipart(r *multipart.Reader) error {
	for n := 0; ; n++ {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return readError(err)
		}
		if n >= maxKeys {
			return badRequest("Bad Request")
		}
		var content io.Reader = part
		if strings.EqualFold(strings.TrimSpace(part.Header.Get("Content-Transfer-Encoding")), "base64") {
			content = base64.NewDecoder(base64.StdEncoding, part) // skips line ends; MAAS's command line encodes every part
		}
		b, err := io.ReadAll(content)
		if err != nil {
			return readError(err)
		}
		name := strings.ToValidUTF8(part.FormName(), "\uFFFD")
		if name == "" {
			continue
		}
		if file, is := fileName(part); is {
			q.files = append(q.files, api.File{Field: name, Name: file, ContentType: part.Header.Get("Content-Type"), Content: b})
			continue
		}
		q.form.add(name, strings.ToValidUTF8(string(b), "\uFFFD"))
	}
}

// fileName tells whether a part is a file: it says filename=, be it empty.
func fileName(part *multipart.Part) (string, bool) {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return "", false
	}
	_, is := params["filename"]
	return part.FileName(), is
}

// parseJSON reads an object as if it were a form: an array is a repeated key, null an absent one, an inner object its own text.
func (q *request) parseJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	t, err := d.Token()
	if err != nil {
		return badRequest("Bad Request")
	}
	if t != json.Delim('{') {
		return badRequest("Bad Request")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return badRequest("Bad Request")
		}
		var v any
		if err := d.Decode(&v); err != nil || len(q.form.keys) >= maxKeys {
			return badRequest("Bad Request")
		}
		k, _ := key.(string)
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, x := range list {
			if s, ok := jsonText(x); ok {
				q.form.add(k, s)
			}
		}
	}
	if _, err := d.Token(); err != nil {
		return badRequest("Bad Request")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("Bad Request")
	}
	return nil
}

func jsonText(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", false
	case string:
		return v, true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	case json.Number:
		return v.String(), true
	}
	b, err := json.Marshal(v)
	return string(b), err == nil
}
