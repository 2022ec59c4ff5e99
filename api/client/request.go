package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/strfmt"

	"github.com/ingot-metal/ingot/api"
)

// Request is what a call carries, by the names that travel. Do takes it; the generated methods make it of their params.
type Request struct {
	Path  map[string]string // the path's parameters
	Query url.Values
	Form  url.Values // of POST and PUT
	Files []api.File // uploads; Field names the parameter
	Body  io.Reader  // the body of operations that take it raw
}

// Answer is a success as it came.
type Answer struct {
	Status      int
	ContentType string // without parameters: application/json
	Body        []byte
}

// Do makes a call by an operation's description (api.Lookup finds it) instead of by its method: for programs that learn what to
// call as they run. Keys that the description does not name travel as well, since another server may know them.
func (c *Client) Do(ctx context.Context, op *api.Operation, r Request) (Answer, error) {
	w := &writer{op: op, Request: r}
	w.key, _ = ctx.Value(idempotencyKey{}).(string)
	w.explain, _ = ctx.Value(explanation{}).(bool)
	for attempt := 0; ; attempt++ {
		v, err := c.runtime.SubmitContext(ctx, &runtime.ClientOperation{
			ID: op.ID, Method: op.Method, PathPattern: strings.TrimPrefix(w.path(), "/"),
			ProducesMediaTypes: []string{"application/json"}, ConsumesMediaTypes: []string{w.consumes()},
			Schemes: []string{c.base.Scheme}, AuthInfo: c.auth, Params: w, Reader: reader{op.ID},
		})
		var e *Error
		if !errors.As(err, &e) || e.RetryAfter <= 0 || attempt >= c.config.Retries || !w.again() {
			a, _ := v.(Answer)
			return a, err
		}
		select {
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		case <-time.After(min(e.RetryAfter, c.config.MaxWait)):
		}
	}
}

// requestOf reads a params struct by the operation's table.
func requestOf(op *api.Operation, params any) Request {
	v := reflect.ValueOf(params).Elem()
	in := v.FieldByName("Input").Interface().(api.Input)
	r := Request{Path: map[string]string{}, Query: url.Values{}, Form: url.Values{}, Body: in.Raw}
	for _, p := range op.Params {
		if p.In == api.Body {
			continue
		}
		f := v.FieldByName(p.Field)
		if file, ok := f.Interface().(*api.File); ok {
			if file != nil {
				r.Files = append(r.Files, api.File{Field: p.Name, Name: file.Name, ContentType: file.ContentType, Content: file.Content})
			}
			continue
		}
		vals := texts(f)
		if len(vals) == 0 || p.Kind == api.AnyBool && vals[0] == "false" {
			continue
		}
		if p.Kind == api.Bool01 { // its words are 0 and 1
			vals = []string{map[string]string{"true": "1", "false": "0"}[vals[0]]}
		}
		switch p.In {
		case api.Path:
			r.Path[p.Name] = vals[0]
		case api.Query:
			r.Query[p.Name] = vals
		case api.Form:
			r.Form[p.Name] = vals
		}
	}
	extra := r.Query
	if op.Method == http.MethodPost || op.Method == http.MethodPut {
		extra = r.Form
	}
	for k, vals := range in.Extra {
		extra[k] = vals
	}
	return r
}

// texts are a field's values as they travel; none when it is not set.
func texts(f reflect.Value) []string {
	if list, ok := f.Interface().([]string); ok {
		return list
	}
	if f.Kind() == reflect.Pointer {
		if f.IsNil() {
			return nil
		}
		f = f.Elem()
	}
	return []string{fmt.Sprint(f.Interface())}
}

// writer puts a Request on the wire.
type writer struct {
	Request
	op      *api.Operation
	key     string
	explain bool
}

// again rewinds a raw body for another attempt; not every body can be.
func (w *writer) again() bool {
	if w.Body == nil {
		return true
	}
	s, ok := w.Body.(io.Seeker)
	if !ok {
		return false
	}
	_, err := s.Seek(0, io.SeekStart)
	return err == nil
}

// path is the first of the operation's paths whose parameters are all given.
func (w *writer) path() string {
	for _, path := range append([]string{w.op.Path}, w.op.Aliases...) {
		if !slices.ContainsFunc(api.PathParams(path), func(name string) bool { _, ok := w.Path[name]; return !ok }) {
			return w.op.Handler.Prefix + path
		}
	}
	return w.op.Handler.Prefix + w.op.Path
}

func (w *writer) consumes() string {
	for _, p := range w.op.Params {
		switch p.In {
		case api.Body:
			return "application/octet-stream"
		case api.Upload:
			return "multipart/form-data"
		}
	}
	if len(w.Files) > 0 {
		return "multipart/form-data"
	}
	return "application/x-www-form-urlencoded"
}

// WriteToRequest implements runtime.ClientRequestWriter.
func (w *writer) WriteToRequest(r runtime.ClientRequest, _ strfmt.Registry) error {
	var errs []error
	do := func(err error) { errs = append(errs, err) }
	if w.key != "" {
		do(r.SetHeaderParam("Idempotency-Key", w.key))
	}
	if w.explain {
		do(r.SetHeaderParam("X-Ingot-Explain", "1"))
	}
	if w.op.Op != "" {
		do(r.SetQueryParam("op", w.op.Op))
	}
	if w.Body != nil {
		do(r.SetBodyParam(io.NopCloser(w.Body)))
	}
	for name, v := range w.Path {
		do(r.SetPathParam(name, v))
	}
	for k, vals := range w.Query {
		do(r.SetQueryParam(k, vals...))
	}
	for k, vals := range w.Form {
		do(r.SetFormParam(k, vals...))
	}
	for _, f := range w.Files {
		do(r.SetFileParam(f.Field, runtime.NamedReader(f.Name, bytes.NewReader(f.Content))))
	}
	return errors.Join(errs...)
}

// reader turns an answer into an Answer or an *Error.
type reader struct{ id string }

// maxAnswer bounds what is read of one answer.
const maxAnswer = 1 << 30

// ReadResponse implements runtime.ClientResponseReader.
func (rd reader) ReadResponse(r runtime.ClientResponse, _ runtime.Consumer) (any, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body(), maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rd.id, err)
	}
	contentType, _, _ := mime.ParseMediaType(r.GetHeader("Content-Type"))
	if r.Code()/100 == 2 {
		return Answer{Status: r.Code(), ContentType: contentType, Body: b}, nil
	}
	e := &Error{Operation: rd.id, Status: r.Code()}
	switch contentType {
	case "application/json":
		if json.Unmarshal(b, &e.Fields) != nil {
			e.Fields = nil
		}
	case "application/problem+json":
		var p struct{ Detail string }
		if json.Unmarshal(b, &p) == nil {
			e.Problem, e.Text = b, p.Detail
		}
	}
	if e.Fields == nil && e.Problem == nil {
		e.Text = string(b)
	}
	if s, err := strconv.Atoi(r.GetHeader("Retry-After")); err == nil && s > 0 && (e.Status == 503 || e.Status == 409) {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return nil, e
}
