// Package client is the Go SDK of Ingot's APIs: one typed method an operation (generated), on go-openapi's runtime. By hand are
// the signing of requests, mutual TLS and retries. It knows the wire by the operation table of package api, and no server.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-openapi/runtime"
	httpclient "github.com/go-openapi/runtime/client"
	"github.com/go-openapi/strfmt"

	"github.com/ingot-metal/ingot/api"
)

// Config is what New needs. URL is required; the rest has usable zero values.
type Config struct {
	// URL is scheme and host of the region, as in "http://host:5240"; a path such as /MAAS/ after it is ignored.
	URL string
	// APIKey is consumer:token:secret. Without one, calls are anonymous.
	APIKey string
	// TLS holds the client's certificate and whom it trusts.
	TLS *tls.Config
	// HTTP replaces the HTTP client; TLS is ignored then.
	HTTP *http.Client
	// Retries is how often a call is made again that was answered 503 or 409 with a Retry-After; 0: 3, negative: never.
	Retries int
	// MaxWait bounds the wait that a Retry-After may ask for; 0: 30 s.
	MaxWait time.Duration
}

// Client calls the APIs. It is safe for concurrent use.
type Client struct {
	config  Config
	base    *url.URL
	runtime *httpclient.Runtime
	auth    runtime.ClientAuthInfoWriter
}

// New makes a client. It does not talk to the region yet.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("client: URL %q is not http://host:port or https://host:port", c.URL)
	}
	if c.Retries == 0 {
		c.Retries = 3
	}
	if c.MaxWait == 0 {
		c.MaxWait = 30 * time.Second
	}
	hc := c.HTTP
	if hc == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = c.TLS
		hc = &http.Client{Transport: t}
	}
	cl := &Client{config: c, base: u, runtime: httpclient.NewWithClient(u.Host, "/", []string{u.Scheme}, hc)}
	cl.runtime.Consumers["*/*"] = runtime.ByteStreamConsumer() // any type: reader decodes
	cl.runtime.Debug = false                                   // the runtime would print keys when the environment says DEBUG
	if c.APIKey != "" {
		if cl.auth, err = OAuth(c.APIKey); err != nil {
			return nil, err
		}
	}
	return cl, nil
}

// Error is an answer that was no success.
type Error struct {
	Operation  string
	Status     int
	Text       string              // of a text answer
	Fields     map[string][]string // of an answer that names fields
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	text := e.Text
	if len(e.Fields) > 0 {
		b, _ := json.Marshal(e.Fields)
		text = string(b)
	}
	return fmt.Sprintf("%s: %d %s: %s", e.Operation, e.Status, http.StatusText(e.Status), text)
}

// IsStatus says whether err is an answer with this status.
func IsStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

type idempotencyKey struct{}

// WithIdempotencyKey makes the calls of a context carry a key: made again with the same key, they change nothing twice.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

func (c *Client) run(ctx context.Context, id string, params any) error {
	_, err := c.submit(ctx, id, params, func([]byte) (any, error) { return nil, nil })
	return err
}

func call[T any](ctx context.Context, c *Client, id string, params any) (T, error) {
	var zero T
	v, err := c.submit(ctx, id, params, func(b []byte) (any, error) {
		var t T
		switch p := any(&t).(type) {
		case *[]byte:
			*p = b
			return t, nil
		case *string:
			if api.Lookup(id).Returns == "text" {
				*p = string(b)
				return t, nil
			}
		}
		if err := json.Unmarshal(b, &t); err != nil {
			return nil, fmt.Errorf("%s: the answer is not what the document says: %w", id, err)
		}
		return t, nil
	})
	if err != nil {
		return zero, err
	}
	t, _ := v.(T) // a JSON null for an untyped answer is a nil interface
	return t, nil
}

// submit makes the call, and makes it again as long as the region asks to.
func (c *Client) submit(ctx context.Context, id string, params any, decode func([]byte) (any, error)) (any, error) {
	op := api.Lookup(id)
	w := &writer{op: op, params: reflect.ValueOf(params).Elem()}
	w.key, _ = ctx.Value(idempotencyKey{}).(string)
	for attempt := 0; ; attempt++ {
		v, err := c.runtime.SubmitContext(ctx, &runtime.ClientOperation{
			ID: id, Method: op.Method, PathPattern: strings.TrimPrefix(w.path(), "/"),
			ProducesMediaTypes: []string{"application/json"}, ConsumesMediaTypes: []string{w.consumes()},
			Schemes: []string{c.base.Scheme}, AuthInfo: c.auth, Params: w, Reader: reader{id, decode},
		})
		var e *Error
		if !errors.As(err, &e) || e.RetryAfter <= 0 || attempt >= c.config.Retries || !w.again() {
			return v, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(e.RetryAfter, c.config.MaxWait)):
		}
	}
}

// writer puts a params struct on a request, by the operation's table.
type writer struct {
	op     *api.Operation
	params reflect.Value
	key    string
}

func (w *writer) input() api.Input { return w.params.FieldByName("Input").Interface().(api.Input) }

// again rewinds a raw body for another attempt; not every body can be.
func (w *writer) again() bool {
	raw := w.input().Raw
	if raw == nil {
		return true
	}
	s, ok := raw.(io.Seeker)
	if !ok {
		return false
	}
	_, err := s.Seek(0, io.SeekStart)
	return err == nil
}

// path is the first of the operation's paths whose parameters are all given.
func (w *writer) path() string {
	for _, path := range w.op.Aliases {
		if w.given(path) && !w.given(w.op.Path) {
			return w.op.Handler.Prefix + path
		}
	}
	return w.op.Handler.Prefix + w.op.Path
}

func (w *writer) given(path string) bool {
	names := api.PathParams(path)
	for _, p := range w.op.Params {
		if p.In == api.Path && slices.Contains(names, p.Name) {
			if f := w.params.FieldByName(p.Field); f.Kind() == reflect.Pointer && f.IsNil() {
				return false
			}
		}
	}
	return true
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
	return "application/x-www-form-urlencoded"
}

// WriteToRequest implements runtime.ClientRequestWriter.
func (w *writer) WriteToRequest(r runtime.ClientRequest, _ strfmt.Registry) error {
	var errs []error
	do := func(err error) { errs = append(errs, err) }
	if w.key != "" {
		do(r.SetHeaderParam("Idempotency-Key", w.key))
	}
	if w.op.Op != "" {
		do(r.SetQueryParam("op", w.op.Op))
	}
	form := w.op.Method == http.MethodPost || w.op.Method == http.MethodPut
	for _, p := range w.op.Params {
		if p.In == api.Body {
			if raw := w.input().Raw; raw != nil {
				do(r.SetBodyParam(io.NopCloser(raw)))
			}
			continue
		}
		f := w.params.FieldByName(p.Field)
		if file, ok := f.Interface().(*api.File); ok {
			if file != nil {
				do(r.SetFileParam(p.Name, runtime.NamedReader(file.Name, bytes.NewReader(file.Content))))
			}
			continue
		}
		vals := texts(f)
		if len(vals) == 0 || p.Kind == api.AnyBool && vals[0] == "false" {
			continue
		}
		switch p.In {
		case api.Path:
			do(r.SetPathParam(p.Name, vals[0]))
		case api.Query:
			do(r.SetQueryParam(p.Name, vals...))
		case api.Form:
			do(r.SetFormParam(p.Name, vals...))
		}
	}
	for k, vals := range w.input().Extra {
		if form {
			do(r.SetFormParam(k, vals...))
		} else {
			do(r.SetQueryParam(k, vals...))
		}
	}
	return errors.Join(errs...)
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

// reader turns an answer into a value or an *Error.
type reader struct {
	id     string
	decode func([]byte) (any, error)
}

// maxAnswer bounds what is read of one answer.
const maxAnswer = 1 << 30

// ReadResponse implements runtime.ClientResponseReader.
func (rd reader) ReadResponse(r runtime.ClientResponse, _ runtime.Consumer) (any, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body(), maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rd.id, err)
	}
	if r.Code()/100 == 2 {
		return rd.decode(b)
	}
	e := &Error{Operation: rd.id, Status: r.Code()}
	if strings.HasPrefix(r.GetHeader("Content-Type"), "application/json") && json.Unmarshal(b, &e.Fields) != nil {
		e.Fields = nil
	}
	if e.Fields == nil {
		e.Text = string(b)
	}
	if s, err := strconv.Atoi(r.GetHeader("Retry-After")); err == nil && s > 0 && (e.Status == 503 || e.Status == 409) {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return nil, e
}

// Ptr is a pointer to a value: how params say that an optional one is there.
func Ptr[T any](v T) *T { return &v }
