package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-openapi/runtime"
	httpclient "github.com/go-openapi/runtime/client"

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
	Problem    json.RawMessage     // an answer of the type application/problem+json, see WithExplanation; Text is its detail
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

type explanation struct{}

// WithExplanation makes the calls of a context ask for reasons: an allocate that finds no machine then answers with an Error whose
// Problem says of each constraint what it left. Servers that do not know the question answer as ever.
func WithExplanation(ctx context.Context) context.Context {
	return context.WithValue(ctx, explanation{}, true)
}

func (c *Client) run(ctx context.Context, id string, params any) error {
	op := api.Lookup(id)
	_, err := c.Do(ctx, op, requestOf(op, params))
	return err
}

func call[T any](ctx context.Context, c *Client, id string, params any) (T, error) {
	var t T
	op := api.Lookup(id)
	a, err := c.Do(ctx, op, requestOf(op, params))
	if err != nil {
		return t, err
	}
	switch p := any(&t).(type) {
	case *[]byte:
		*p = a.Body
		return t, nil
	case *string:
		if op.Returns == "text" {
			*p = string(a.Body)
			return t, nil
		}
	}
	if err := json.Unmarshal(a.Body, &t); err != nil {
		var zero T
		return zero, fmt.Errorf("%s: the answer is not what the document says: %w", id, err)
	}
	return t, nil
}

// Ptr is a pointer to a value: how params say that an optional one is there.
func Ptr[T any](v T) *T { return &v }
