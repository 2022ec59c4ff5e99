// Package servertest runs a whole server on a real store for tests, with an administrator and a plain user to call it as. Every
// answer of an operation is held against the documents: a status, content type, field or type that they do not promise fails
// the test that caused it. It knows the wire and not the SDK, so that a fault in one does not hide a fault in the other.
package servertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/openapi"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/server"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// Env is a running server.
type Env struct {
	URL   string // http://127.0.0.1:port
	P     *provisioner.Service
	DB    *storage.DB
	Admin *Caller
	User  *Caller
	Anon  *Caller
	Log   *Log // what the server logged

	checks *checker
}

// ProvisionerConfig and ServerConfig are what an Option may change.
type (
	ProvisionerConfig = provisioner.Config
	ServerConfig      = server.Config
)

// Option changes what New builds.
type Option func(*ProvisionerConfig, *ServerConfig)

// New starts a server; it ends with the test.
func New(t testing.TB, opts ...Option) *Env {
	t.Helper()
	db := storagetest.New(t)
	return On(t, db, opts...)
}

// On starts a server on a store.
func On(t testing.TB, db *storage.DB, opts ...Option) *Env {
	t.Helper()
	store, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	logs := &Log{}
	log := slog.New(slog.NewTextHandler(logs, nil))
	checks := newChecker(t)
	pc := provisioner.Config{DB: db, Log: log, Content: store, DataDir: t.TempDir(),
		KeyHosts: provisioner.KeyHosts{Launchpad: nowhere, GitHub: nowhere}}
	sc := server.Config{Log: log, Subversion: "test", Observe: checks.observe}
	for _, o := range opts {
		o(&pc, &sc)
	}
	p := provisioner.New(pc)
	sc.Provisioner = p
	s, err := server.New(sc)
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(checks.wrap(s.Handler()))
	t.Cleanup(hs.Close)
	e := &Env{URL: hs.URL, P: p, DB: db, Log: logs, checks: checks}
	e.Admin, e.User = e.AddUser(t, "admin", true), e.AddUser(t, "user", false)
	e.Anon = &Caller{t: t, env: e}
	return e
}

// nowhere refuses every connection: no test asks the world.
const nowhere = "http://127.0.0.1:1"

// AddUser makes a user with an API key.
func (e *Env) AddUser(t testing.TB, name string, admin bool) *Caller {
	t.Helper()
	u := storage.User{Username: name, Email: name + "@example.com", IsSuperuser: admin, IsActive: true, Created: time.Now()}
	tok := storage.APIToken{Name: "MAAS consumer", ConsumerKey: pad(name+"C", 18), TokenKey: pad(name+"T", 18), TokenSecret: pad(name+"S", 32), Created: time.Now()}
	err := e.DB.Write(context.Background(), func(tx *storage.Tx) error {
		if err := tx.InsertUser(&u); err != nil {
			return err
		}
		tok.UserID = u.ID
		return tx.InsertToken(&tok)
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Caller{t: t, env: e, Key: tok.ConsumerKey + ":" + tok.TokenKey + ":" + tok.TokenSecret, User: u}
}

func pad(s string, n int) string { return (s + strings.Repeat("0", n))[:n] }

// Caller calls the server as somebody.
type Caller struct {
	Key  string // API key; "" for nobody
	User storage.User

	t   testing.TB
	env *Env
}

var nonces atomic.Int64

// Authorization is a fresh OAuth header of an API key.
func Authorization(key string) string {
	p := strings.Split(key, ":")
	return fmt.Sprintf(`OAuth realm="", oauth_version="1.0", oauth_nonce="n%d-%d", oauth_timestamp="%d", oauth_consumer_key="%s", oauth_token="%s", oauth_signature_method="PLAINTEXT", oauth_signature="%%26%s"`,
		nonces.Add(1), time.Now().UnixNano(), time.Now().Unix(), p[0], p[1], p[2])
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Text is the body as text.
func (a Answer) Text() string { return string(a.Body) }

// Into decodes a JSON body.
func (a Answer) Into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		t.Fatalf("status %d, body is not the JSON expected: %v\n%s", a.Status, err, a.Body)
	}
}

// Send sends a request; path is below the host, or below /MAAS/api/2.0/ when it has no slash in front.
func (c *Caller) Send(method, path, contentType string, body io.Reader, headers ...string) Answer {
	c.t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = "/MAAS/api/2.0/" + path
	}
	req, err := http.NewRequest(method, c.env.URL+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.Key != "" {
		req.Header.Set("Authorization", Authorization(c.Key))
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return Answer{res.StatusCode, res.Header, b}
}

// Get reads a path.
func (c *Caller) Get(path string) Answer { c.t.Helper(); return c.Send(http.MethodGet, path, "", nil) }

// Post sends a urlencoded form; pairs are key, value, key, value.
func (c *Caller) Post(path string, pairs ...string) Answer {
	c.t.Helper()
	return c.Send(http.MethodPost, path, "application/x-www-form-urlencoded", strings.NewReader(Form(pairs...)))
}

// Put is Post with the other verb.
func (c *Caller) Put(path string, pairs ...string) Answer {
	c.t.Helper()
	return c.Send(http.MethodPut, path, "application/x-www-form-urlencoded", strings.NewReader(Form(pairs...)))
}

// Delete deletes a path.
func (c *Caller) Delete(path string) Answer {
	c.t.Helper()
	return c.Send(http.MethodDelete, path, "", nil)
}

// Form writes pairs of key and value as a urlencoded form.
func Form(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

// Log collects what the server logs.
type Log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// checker holds answers against the documents.
type checker struct {
	t      testing.TB
	routes map[string]*routers.Route // by operation id

	mu   sync.Mutex                // guards seen
	seen map[string]*api.Operation // by trace id
}

var formats = sync.OnceFunc(func() {
	openapi3.DefineStringFormatValidator("maas-model-time", openapi3.NewRegexpFormatValidator(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`))
	openapi3.DefineStringFormatValidator("maas-mail-time", openapi3.NewRegexpFormatValidator(`^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}$`))
	openapi3.DefineStringFormatValidator("maas-log-time", openapi3.NewRegexpFormatValidator(`^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2}\. \d{4} \d\d:\d\d:\d\d$`))
	openapi3.DefineStringFormatValidator("maas-duration", openapi3.NewRegexpFormatValidator(`^((\d+ days?, )?\d+:\d\d:\d\d)?$`))
})

func newChecker(t testing.TB) *checker {
	formats()
	c := &checker{t: t, routes: map[string]*routers.Route{}, seen: map[string]*api.Operation{}}
	for _, b := range [][]byte{openapi.MAAS, openapi.Ingot} {
		doc, err := openapi3.NewLoader().LoadFromData(b)
		if err != nil {
			t.Fatal(err)
		}
		for path, item := range doc.Paths.Map() {
			for method, op := range item.Operations() {
				c.routes[op.OperationID] = &routers.Route{Spec: doc, Path: path, PathItem: item, Method: method, Operation: op}
			}
		}
	}
	return c
}

func (c *checker) observe(o server.Observation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[o.TraceID] = o.Operation
}

type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) { r.status = status; r.ResponseWriter.WriteHeader(status) }
func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

var traces atomic.Int64

func (c *checker) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		id := req.Header.Get("MAAS-trace-id")
		if id == "" {
			id = fmt.Sprintf("test-%d", traces.Add(1))
			req.Header.Set("MAAS-trace-id", id)
		}
		rec := &recorder{ResponseWriter: w}
		next.ServeHTTP(rec, req)
		c.mu.Lock()
		op := c.seen[id]
		delete(c.seen, id)
		c.mu.Unlock()
		if op == nil {
			return
		}
		if err := c.check(req, op, rec); err != nil {
			c.t.Errorf("%s: the answer to %s %s is not what the document promises: %v", op.ID, req.Method, req.URL.Path, err)
		}
	})
}

func (c *checker) check(req *http.Request, op *api.Operation, rec *recorder) error {
	route := c.routes[op.ID]
	if route == nil {
		return fmt.Errorf("the documents do not have it")
	}
	kind := rec.Header().Get("Content-Type")
	if kind == "" {
		return fmt.Errorf("status %d without Content-Type", rec.status)
	}
	if rec.status >= 500 && rec.status != http.StatusNotImplemented && rec.status != http.StatusServiceUnavailable && rec.status != http.StatusGatewayTimeout {
		return fmt.Errorf("status %d: %s", rec.status, rec.body.Bytes())
	}
	if rec.status < 300 && rec.status != op.Status {
		return fmt.Errorf("status %d, promised is %d", rec.status, op.Status)
	}
	if !strings.HasPrefix(kind, "application/json") && !strings.HasPrefix(kind, "text/plain") {
		return nil // raw bytes
	}
	if rec.status >= 400 {
		// Failures share one form: a text, or JSON.
		if strings.HasPrefix(kind, "application/json") && !json.Valid(rec.body.Bytes()) {
			return fmt.Errorf("status %d with broken JSON", rec.status)
		}
		return nil
	}
	return openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, Route: route},
		Status:                 rec.status, Header: rec.Header(), Body: io.NopCloser(bytes.NewReader(rec.body.Bytes())),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
}
