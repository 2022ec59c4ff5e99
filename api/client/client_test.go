package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

const key = "consumer0000000000:token0000000000000:secret"

// record answers every request with status and body, and keeps what came.
func record(t *testing.T, status int, contentType, body string, headers ...string) (*client.Client, *http.Request, *[]byte) {
	t.Helper()
	got, sent := new(http.Request), new([]byte)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*got = *r
		if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
			_ = r.ParseMultipartForm(1 << 20)
			got.MultipartForm = r.MultipartForm
		} else {
			*sent, _ = io.ReadAll(r.Body)
		}
		w.Header().Set("Content-Type", contentType)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{URL: srv.URL + "/MAAS/", APIKey: key, MaxWait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return c, got, sent
}

func TestRequests(t *testing.T) {
	ctx := context.Background()
	for name, x := range map[string]struct {
		call   func(*client.Client) error
		method string
		uri    string
		form   string
	}{
		"operation with a form": {func(c *client.Client) error {
			_, err := c.MachinesAllocate(ctx, api.MachinesAllocateParams{CPUCount: []string{"4"}, Tags: []string{"a", "b"}, DryRun: client.Ptr(true),
				Input: api.Input{Extra: url.Values{"x_y": {"1"}}}})
			return err
		}, "POST", "/MAAS/api/2.0/machines/?op=allocate", "cpu_count=4&dry_run=true&tags=a&tags=b&x_y=1"},
		"list with filters": {func(c *client.Client) error {
			_, err := c.EventsQuery(ctx, api.EventsQueryParams{Limit: client.Ptr(int64(5)), ID: []string{"a", "b"}})
			return err
		}, "GET", "/MAAS/api/2.0/events/?id=a&id=b&limit=5&op=query", ""},
		"path without end slash": {func(c *client.Client) error {
			return c.NodeScriptDelete(ctx, api.NodeScriptDeleteParams{Name: "a b"})
		}, "DELETE", "/MAAS/api/2.0/scripts/a%20b", ""},
		"slash in a path parameter": {func(c *client.Client) error {
			_, err := c.SubnetRead(ctx, api.SubnetReadParams{ID: "10.0.0.0/24"})
			return err
		}, "GET", "/MAAS/api/2.0/subnets/10.0.0.0%2F24/", ""},
		"first path": {func(c *client.Client) error {
			_, err := c.VlanRead(ctx, api.VlanReadParams{FabricID: client.Ptr("fabric-0"), VID: client.Ptr("10")})
			return err
		}, "GET", "/MAAS/api/2.0/fabrics/fabric-0/vlans/10/", ""},
		"second path": {func(c *client.Client) error {
			_, err := c.VlanRead(ctx, api.VlanReadParams{VLANID: client.Ptr(int64(5001))})
			return err
		}, "GET", "/MAAS/api/2.0/vlans/5001/", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, got, body := record(t, 200, "application/json", "{}")
			if err := x.call(c); err != nil {
				t.Fatal(err)
			}
			if got.Method != x.method || got.RequestURI != x.uri || string(*body) != x.form {
				t.Errorf("%s %s %q, want %s %s %q", got.Method, got.RequestURI, *body, x.method, x.uri, x.form)
			}
			if h := got.Header.Get("Authorization"); !strings.Contains(h, `oauth_signature="%26secret"`) || !strings.Contains(h, `oauth_signature_method="PLAINTEXT"`) {
				t.Errorf("Authorization: %s", h)
			}
		})
	}
}

func TestUploads(t *testing.T) {
	ctx := context.Background()
	c, got, _ := record(t, 200, "application/json", "{}")
	_, err := c.NodeScriptsCreate(ctx, api.NodeScriptsCreateParams{Name: client.Ptr("probe"), Script: &api.File{Name: "probe.sh", Content: []byte("#!/bin/sh")}})
	if err != nil {
		t.Fatal(err)
	}
	f := got.MultipartForm
	if f == nil || f.Value["name"][0] != "probe" || f.File["script"][0].Filename != "probe.sh" {
		t.Errorf("form %+v", f)
	}
	c, got, body := record(t, 200, "text/plain", "OK")
	ok, err := c.BootResourceFileUploadUpload(ctx, api.BootResourceFileUploadUploadParams{ResourceID: 7, ID: 18, Input: api.Input{Raw: strings.NewReader("chunk")}})
	if err != nil || ok != "OK" || string(*body) != "chunk" || got.Header.Get("Content-Type") != "application/octet-stream" || got.RequestURI != "/MAAS/api/2.0/boot-resources/7/upload/18/" {
		t.Errorf("%q %v: %s %q %s", ok, err, got.RequestURI, *body, got.Header.Get("Content-Type"))
	}
}

func TestAnswers(t *testing.T) {
	ctx := context.Background()
	read := func(c *client.Client) error {
		_, err := c.MachineRead(ctx, api.MachineReadParams{SystemID: "abc123"})
		return err
	}
	c, _, _ := record(t, 400, "application/json", `{"name":["This field is required."]}`)
	var e *client.Error
	if err := read(c); !errors.As(err, &e) || e.Status != 400 || e.Fields["name"][0] != "This field is required." || !strings.Contains(err.Error(), "machine.read: 400") {
		t.Errorf("fields: %v", err)
	}
	c, _, _ = record(t, 404, "text/plain; charset=utf-8", "No Machine matches the given query.")
	if err := read(c); !client.IsStatus(err, 404) || client.IsStatus(err, 400) || !errors.As(err, &e) || e.Text != "No Machine matches the given query." {
		t.Errorf("text: %v", err)
	}
	c, _, _ = record(t, 200, "application/json", `[]`)
	if err := read(c); err == nil || !strings.Contains(err.Error(), "machine.read") {
		t.Errorf("an answer of another shape: %v", err)
	}
	c, _, _ = record(t, 200, "application/json", `null`)
	if m, err := c.MachinePowerOff(ctx, api.MachinePowerOffParams{SystemID: "abc123"}); err != nil || m != nil {
		t.Errorf("null: %v %v", m, err)
	}
	if v, err := c.MaasGetConfig(ctx, api.MaasGetConfigParams{Name: "kernel_opts"}); err != nil || v != nil {
		t.Errorf("null setting: %v %v", v, err)
	}
	c, _, _ = record(t, 200, "application/bson", "\x05\x00\x00\x00\x00")
	if b, err := c.MachineDetails(ctx, api.MachineDetailsParams{SystemID: "abc123"}); err != nil || !bytes.Equal(b, []byte("\x05\x00\x00\x00\x00")) {
		t.Errorf("bytes: %q %v", b, err)
	}
}

func TestRetries(t *testing.T) {
	var calls atomic.Int64
	var bodies []string
	status := http.StatusServiceUnavailable
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(b)+r.Header.Get("Idempotency-Key"))
		if calls.Add(1) < 3 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(status)
			return
		}
		_, _ = io.WriteString(w, "{}")
	}))
	defer srv.Close()
	c, err := client.New(client.Config{URL: srv.URL, MaxWait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx := client.WithIdempotencyKey(context.Background(), "K")
	if _, err := c.ZonesCreate(ctx, api.ZonesCreateParams{Name: "z"}); err != nil || calls.Load() != 3 || strings.Join(bodies, " ") != "name=zK name=zK name=zK" {
		t.Errorf("%v after %d calls: %q", err, calls.Load(), bodies)
	}
	// Without Retry-After, and with a body that cannot be sent again, the answer stands.
	calls.Store(0)
	raw := api.Input{Raw: io.MultiReader(strings.NewReader("once"))}
	if _, err := c.BootResourceFileUploadUpload(ctx, api.BootResourceFileUploadUploadParams{Input: raw}); !client.IsStatus(err, 503) || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	calls.Store(0)
	status = http.StatusInternalServerError
	if _, err := c.ZonesCreate(ctx, api.ZonesCreateParams{Name: "z"}); !client.IsStatus(err, 500) || calls.Load() != 1 {
		t.Errorf("500: %v after %d calls", err, calls.Load())
	}
	// A context that ends stops the waiting.
	calls.Store(0)
	status = http.StatusServiceUnavailable
	slow, err := client.New(client.Config{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := slow.ZonesCreate(short, api.ZonesCreateParams{Name: "z"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended context: %v", err)
	}
}

// With mutual TLS the client shows its certificate, and trusts only whom it was told to.
func TestMutualTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, "{}")
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	for name, x := range map[string]struct {
		config *tls.Config
		ok     bool
	}{
		"certificate":    {&tls.Config{RootCAs: pool, Certificates: srv.TLS.Certificates, MinVersion: tls.VersionTLS12}, true},
		"no certificate": {&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, false},
		"unknown server": {nil, false},
	} {
		c, err := client.New(client.Config{URL: srv.URL, TLS: x.config})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.VersionRead(context.Background(), api.VersionReadParams{}); (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []client.Config{{URL: "host:5240"}, {URL: ""}, {URL: "ftp://h"}, {URL: "http://h", APIKey: "a:b"}, {URL: "http://h", APIKey: "a::c"}} {
		if _, err := client.New(c); err == nil {
			t.Errorf("%+v: accepted", c)
		}
	}
}

// Do sends what the description does not name as well, and passes on the reasons of a refusal.
func TestDo(t *testing.T) {
	var got *http.Request
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil && !errors.Is(err, http.ErrNotMultipart) {
			t.Error(err)
		}
		got = r
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(409)
		_, _ = io.WriteString(w, `{"detail": "Nothing.", "relax": "mem"}`)
	}))
	defer hs.Close()
	c, err := client.New(client.Config{URL: hs.URL, APIKey: "a:b:c"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Do(client.WithExplanation(t.Context()), api.Lookup("machines.allocate"), client.Request{Form: url.Values{"mem": {"1"}, "not_invented_yet": {"x", "y"}}})
	var e *client.Error
	if !errors.As(err, &e) || e.Text != "Nothing." || !strings.Contains(string(e.Problem), `"relax"`) || e.Fields != nil {
		t.Errorf("refused: %#v", err)
	}
	if got.Header.Get("X-Ingot-Explain") != "1" || got.URL.Query().Get("op") != "allocate" || !slices.Equal(got.PostForm["not_invented_yet"], []string{"x", "y"}) {
		t.Errorf("sent %v %v %v", got.URL, got.Header, got.PostForm)
	}
	_, _ = c.Do(t.Context(), api.Lookup("machines.list"), client.Request{Query: url.Values{"future": {"1"}}})
	if got.URL.Query().Get("future") != "1" || got.Header.Get("X-Ingot-Explain") != "" {
		t.Errorf("sent %v %v", got.URL, got.Header)
	}
	// A file for an operation that takes none by its description, as another server may.
	_, _ = c.Do(t.Context(), api.Lookup("machine.deploy"), client.Request{Path: map[string]string{"system_id": "a b"}, Form: url.Values{"k": {"v"}},
		Files: []api.File{{Field: "f", Name: "n", Content: []byte{0, 1}}}})
	if got.URL.EscapedPath() != "/MAAS/api/2.0/machines/a%20b/" || got.MultipartForm == nil || len(got.MultipartForm.File["f"]) != 1 || got.FormValue("k") != "v" {
		t.Errorf("sent %v %+v", got.URL, got.MultipartForm)
	}
}
