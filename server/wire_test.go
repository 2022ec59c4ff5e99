package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// The rules of the wire that every client leans on: paths, verbs, operations, types of body.
func TestWire(t *testing.T) {
	e := servertest.New(t)
	for _, c := range []struct {
		as     *servertest.Caller
		method string
		path   string
		status int
		text   string // the whole body, unless it starts with "~": then a part of it
		header string // "Name: value" that must be there
	}{
		{e.Anon, "GET", "/MAAS/api/version/", 200, "2.0", ""},
		{e.Anon, "GET", "/MAAS/api/1.0/machines/", 410, "The 1.0 API is no longer available. Please use API version 2.0.", ""},
		{e.Anon, "POST", "/MAAS/api/1.0/", 410, "The 1.0 API is no longer available. Please use API version 2.0.", ""},
		{e.Anon, "GET", "version/", 200, `~"network-deployment-ubuntu"`, "Content-Type: application/json; charset=utf-8"},
		{e.Anon, "GET", "version", 404, "Unknown API endpoint: /MAAS/api/2.0/version.", "Content-Type: text/plain; charset=utf-8"},
		{e.Admin, "GET", "machines", 404, "Unknown API endpoint: /MAAS/api/2.0/machines.", ""},
		{e.Anon, "DELETE", "nonsense/x", 404, "Unknown API endpoint: /MAAS/api/2.0/nonsense/x.", ""},
		{e.Anon, "GET", "machines//", 404, "Unknown API endpoint: /MAAS/api/2.0/machines//.", ""},
		{e.Anon, "GET", "scripts/a/", 404, "Unknown API endpoint: /MAAS/api/2.0/scripts/a/.", ""},
		{e.Anon, "GET", "scripts/a/op-download", 404, "~Unknown API endpoint", ""},
		{e.Anon, "GET", "account/prefs/sshkeys/one/", 404, "~Unknown API endpoint", ""},
		{e.Anon, "GET", "/elsewhere", 404, "Not Found", ""},
		{e.Anon, "GET", "/healthz", 200, "ok", ""},
		{e.Anon, "GET", "users/?op=whoami", 401, "Forbidden", `Www-Authenticate: OAuth realm="OAuth"`},
		{e.Anon, "GET", "subnets/1/?op=reserved_ip_ranges", 401, "Forbidden", ""},
		{e.Anon, "GET", "nodes/", 400, "Unrecognised signature: method=GET op=None", ""},
		{e.Anon, "POST", "nodes/?op=set_zone", 401, "Forbidden", ""},
		{e.Anon, "POST", "machines/?op=allocate", 400, "Unrecognised signature: method=POST op=allocate", ""},
		{e.Anon, "POST", "machines/?op=accept", 401, "You must be logged in to accept machines.", ""},
		{e.Anon, "PUT", "machines/", 401, "Forbidden", ""},
		{e.Admin, "POST", "machines/?op=invalid_operation", 400, "Unrecognised signature: method=POST op=invalid_operation", ""},
		{e.Admin, "POST", "machines/op-invalid_operation", 400, "Unrecognised signature: method=POST op=invalid_operation", ""},
		{e.Admin, "GET", "machines/?op=is_action_in_progress&mac_address=aa:bb:cc:dd:ee:ff", 400, "Unrecognised signature: method=GET op=is_action_in_progress", ""},
		{e.Admin, "POST", "nodes/", 400, "Unrecognised signature: method=POST op=None", ""},
		{e.Admin, "PUT", "nodes/", 405, "", "Allow: GET, POST"},
		{e.Admin, "POST", "zones/default/", 405, "", "Allow: DELETE, GET, PUT"},
		{e.Admin, "PATCH", "zones/default/", 405, "", "Allow: DELETE, GET, PUT"},
		{e.Admin, "POST", "devices/abc123/", 400, "Unrecognised signature: method=POST op=None", ""},
		{e.Admin, "GET", "version/?format=xml", 400, "Invalid output format specified 'xml'.", ""},
		{e.Anon, "GET", "version/?format=json&op=", 200, `~"capabilities"`, ""},
		{e.Admin, "GET", "pods/", 410, "VM host (KVM) support has been removed from MAAS.", ""},
		{e.Anon, "GET", "pods/", 401, "Forbidden", ""},
		{e.Admin, "GET", "vm-clusters/1", 410, "VM host (KVM) support has been removed from MAAS.", ""},
		{e.Admin, "POST", "networks/", 410, "Gone", ""},
		{e.User, "POST", "zones/", 403, "User does not have permission to perform this operation. The user should have permission 'can_edit_global_entities'", ""},
		{e.Admin, "POST", "account/?op=delete_authorisation_token", 400, "No provided token_key!", "Vary: Authorization"},
		{e.Admin, "GET", "maas/op-get_config", 400, "No provided name!", "X-Frame-Options: DENY"},
		{e.Admin, "POST", "boot-resources/?op=import", 200, "Import of boot resources started", ""},
		{e.Anon, "GET", "/ingot/v1/nothing", 404, "Unknown API endpoint: /ingot/v1/nothing.", ""},
		{e.Anon, "GET", "/MAAS/api/2.0/openapi.yaml", 200, "~openapi: 3.0.3", "Content-Type: application/openapi+yaml"},
		{e.Anon, "POST", "/MAAS/api/2.0/describe/", 405, "", "Allow: GET"},
		{e.Anon, "GET", "/MAAS/api/", 200, `~"resources": [`, ""},
	} {
		t.Run(fmt.Sprintf("%s %s", c.method, c.path), func(t *testing.T) {
			a := c.as.Send(c.method, c.path, "", nil)
			part, isPart := strings.CutPrefix(c.text, "~")
			if a.Status != c.status || !isPart && a.Text() != c.text || isPart && !strings.Contains(a.Text(), part) {
				t.Errorf("%d %q, want %d %q", a.Status, a.Text(), c.status, c.text)
			}
			if a.Header.Get("Content-Type") == "" || a.Header.Get("MAAS-trace-id") == "" {
				t.Errorf("headers lack a type or trace id: %v", a.Header)
			}
			if name, value, ok := strings.Cut(c.header, ": "); ok {
				if got := strings.Join(a.Header.Values(name), ", "); !strings.Contains(got, value) {
					t.Errorf("header %s is %q, want %q", name, got, value)
				}
			}
		})
	}
	if a := e.Anon.Send("GET", "version/", "", nil, "MAAS-trace-id", "mine"); a.Header.Get("MAAS-trace-id") != "mine" {
		t.Errorf("trace id %q", a.Header.Get("MAAS-trace-id"))
	}
}

// HEAD has no body to compare.
func TestHeadIsRefused(t *testing.T) {
	e := servertest.New(t)
	if a := e.Admin.Send("HEAD", "machines/", "", nil); a.Status != http.StatusMethodNotAllowed {
		t.Errorf("status %d", a.Status)
	}
}

// An operation's name comes from the query, else from the form, else from the path; an empty one counts as absent.
func TestOperationName(t *testing.T) {
	e := servertest.New(t)
	for name, a := range map[string]servertest.Answer{
		"query":                 e.Admin.Get("users/?op=whoami"),
		"path":                  e.Admin.Get("users/op-whoami"),
		"query before path":     e.Admin.Get("users/op-nonsense?op=whoami"),
		"empty query then path": e.Admin.Get("users/op-whoami?op="),
	} {
		var u api.User
		if a.Into(t, &u); a.Status != 200 || u.Username != "admin" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	if a := e.Admin.Post("account/?op=", "op", "create_authorisation_token", "name", "n"); a.Status != 200 {
		t.Errorf("form: %d %s", a.Status, a.Body)
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.WriteField("op", "create_authorisation_token")
	_ = w.Close()
	if a := e.Admin.Send("POST", "account/", w.FormDataContentType(), &b); a.Status != 200 {
		t.Errorf("multipart: %d %s", a.Status, a.Body)
	}
	if a := e.Admin.Post("account/?op=nonsense", "op", "create_authorisation_token"); a.Status != 400 {
		t.Errorf("query before form: %d %s", a.Status, a.Body)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	e := servertest.New(t)
	big := strings.Repeat("a", 1<<20+1)
	if a := e.Anon.Post("machines/", "hostname", big); a.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("anonymous: %d", a.Status)
	}
	if a := e.Admin.Post("account/?op=create_authorisation_token", "name", "n", "ignored", big); a.Status != 200 {
		t.Errorf("admin: %d %s", a.Status, a.Body)
	}
	// Whoever only looks as if they had credentials is not trusted with more.
	if a := e.Anon.Send("POST", "account/?op=create_authorisation_token", "application/x-www-form-urlencoded", strings.NewReader(big), "Cookie", "sessionid=x"); a.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("a cookie: %d", a.Status)
	}
	if a := e.Anon.Send("POST", "account/?op=create_authorisation_token", "multipart/form-data; boundary=b", strings.NewReader(big), "Authorization", "OAuth oauth_token=x"); a.Status != http.StatusUnauthorized {
		t.Errorf("a bad header: %d", a.Status)
	}
	// A length that nobody said, too.
	if a := e.Anon.Send("POST", "machines/", "application/x-www-form-urlencoded", io.MultiReader(strings.NewReader("a="), strings.NewReader(big))); a.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked: %d", a.Status)
	}
}

func TestDescribe(t *testing.T) {
	e := servertest.New(t)
	a := e.Anon.Get("describe/")
	if a.Status != 200 || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("X-MAAS-API-Hash") != "" {
		t.Fatalf("%d %v", a.Status, a.Header)
	}
	type action struct {
		Name, Method, Doc string
		Op                *string
		Restful           bool
	}
	type handler struct {
		Name, Doc, Path, URI string
		Params               []string
		Actions              []action
	}
	var d struct {
		Doc, Hash string
		Resources []struct {
			Name       string
			Anon, Auth *handler
		}
		Handlers []handler
	}
	a.Into(t, &d)
	if h := e.Anon.Get("version/").Header.Get("X-MAAS-API-Hash"); len(h) != 40 || h != d.Hash {
		t.Errorf("hash %q on answers, %q in the document", h, d.Hash)
	}
	if len(d.Resources) != 97 || len(d.Handlers) != 103 {
		t.Errorf("%d resources, %d handlers", len(d.Resources), len(d.Handlers))
	}
	byName := map[string]int{}
	for i, r := range d.Resources {
		if i > 0 && d.Resources[i-1].Name >= r.Name {
			t.Errorf("%s is out of order", r.Name)
		}
		byName[r.Name] = i
		for _, h := range []*handler{r.Anon, r.Auth} {
			if h == nil {
				continue
			}
			if h.URI != e.URL+h.Path {
				t.Errorf("%s: uri %q for path %q", h.Name, h.URI, h.Path)
			}
			for _, p := range h.Params {
				if !strings.Contains(h.Path, "{"+p+"}") {
					t.Errorf("%s: %s is not in %s", h.Name, p, h.Path)
				}
			}
			for _, x := range h.Actions {
				if _, body, ok := strings.Cut(x.Doc, "\n\n"); !ok || x.Restful != (x.Op == nil) || x.Op != nil && *x.Op != x.Name {
					t.Errorf("%s %s: %+v %q", h.Name, x.Name, x, body)
				}
			}
		}
	}
	m := d.Resources[byName["MachinesHandler"]]
	if m.Anon == nil || m.Anon.Name != "AnonMachinesHandler" || m.Auth == nil {
		t.Fatalf("%+v", m)
	}
	for _, x := range m.Auth.Actions {
		if x.Name == "is_action_in_progress" {
			t.Error("an operation of anonymous callers is offered to others")
		}
		if x.Name == "allocate" && !strings.Contains(x.Doc, ":param cpu_count:") {
			t.Errorf("allocate's doc names no parameters: %q", x.Doc)
		}
	}
	v := d.Resources[byName["VersionHandler"]]
	if v.Auth != nil || v.Anon == nil {
		t.Errorf("version: %+v", v)
	}
	if vlan := d.Resources[byName["VlanHandler"]].Auth; vlan.Path != "/MAAS/api/2.0/fabrics/{fabric_id}/vlans/{vid}/" {
		t.Errorf("vlan: %+v", vlan)
	}
	if _, ok := byName["PodsHandler"]; ok {
		t.Error("a hidden handler is described")
	}
}

// The same key and request give the same answer, once done; another request with the key is refused; a failure of ours is not kept.
func TestIdempotencyKey(t *testing.T) {
	e := servertest.New(t)
	const form = "application/x-www-form-urlencoded"
	create := func(key, name string) servertest.Answer {
		return e.Admin.Send("POST", "zones/", form, strings.NewReader(servertest.Form("name", name)), "Idempotency-Key", key)
	}
	first, again := create("k1", "east"), create("k1", "east")
	if first.Status != 200 || again.Status != 200 || first.Text() != again.Text() || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("first %d %s, again %d %s", first.Status, first.Body, again.Status, again.Body)
	}
	if a := create("k1", "west"); a.Status != http.StatusConflict {
		t.Errorf("another request: %d %s", a.Status, a.Body)
	}
	if a := create("k 2", "west"); a.Status != http.StatusBadRequest {
		t.Errorf("bad key: %d %s", a.Status, a.Body)
	}
	// A refusal is an answer too.
	bad, badAgain := create("k3", "bad name!"), create("k3", "bad name!")
	if bad.Status != 400 || badAgain.Text() != bad.Text() || badAgain.Header.Get("Content-Type") != bad.Header.Get("Content-Type") {
		t.Errorf("refusal: %d %s, again %d %s", bad.Status, bad.Body, badAgain.Status, badAgain.Body)
	}
	// A call whose process died after it had committed is not made again.
	err := e.DB.Write(context.Background(), func(tx *storage.Tx) error {
		// What the request below will be taken for: reserved by the same call, which then dies.
		k, err := tx.ReserveIdempotency(e.Admin.User.ID, "k5", "POST /MAAS/api/2.0/zones/ zones.create "+fingerprintOf("name", "south"))
		if k != nil {
			t.Errorf("k5 is taken: %+v", k)
		}
		return err
	})
	if err == nil {
		err = e.DB.Write(storage.WithIdempotency(context.Background(), e.Admin.User.ID, "k5"), func(*storage.Tx) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	if a := create("k5", "south"); a.Status != 409 || a.Header.Get("Retry-After") != "1" {
		t.Errorf("after a crash: %d %s", a.Status, a.Body)
	}
	// Keys are each user's own: the same key of another user is another key, and permissions are not replayed.
	if a := e.User.Send("POST", "zones/", form, strings.NewReader("name=east"), "Idempotency-Key", "k1"); a.Status != http.StatusForbidden {
		t.Errorf("another user: %d %s", a.Status, a.Body)
	}
	// Sixteen at once: one zone.
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 16 {
		wg.Go(func() {
			a := create("k4", "north")
			mu.Lock()
			statuses[a.Status]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if statuses[200] == 0 || statuses[200]+statuses[409] != 16 {
		t.Errorf("answers %v", statuses)
	}
	var zones []api.Zone
	e.Admin.Get("zones/").Into(t, &zones)
	if len(zones) != 3 { // default, east, north
		t.Errorf("%d zones: %+v", len(zones), zones)
	}
}

// fingerprintOf is the digest of a form of one key, as the server makes it.
func fingerprintOf(key, value string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(fmt.Sprintf("\n%q=%q\n\n", key, []string{value}))))
}

// One line a request, without anything that could be secret.
func TestLogHoldsNoSecrets(t *testing.T) {
	e := servertest.New(t)
	e.Admin.Post("users/?op=&secret-query=hush1", "username", "hush2", "password", "hush3", "email", "a@b.c", "is_superuser", "0")
	log := e.Log.String()
	if strings.Count(log, "msg=request") != 1 || !strings.Contains(log, "operation=users.create") || !strings.Contains(log, "user=admin") {
		t.Errorf("log: %s", log)
	}
	for _, secret := range []string{"hush1", "hush3", strings.Split(e.Admin.Key, ":")[2]} {
		if strings.Contains(log, secret) {
			t.Errorf("the log tells %s: %s", secret, log)
		}
	}
}

// A panic in one request is that request's: 500 without a word of why, and the next one is served.
func TestPanicEndsOneRequest(t *testing.T) {
	e := servertest.New(t, func(_ *servertest.ProvisionerConfig, c *servertest.ServerConfig) {
		c.Mounts = []server.Mount{{Prefix: "/boom/", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret") })}}
	})
	a := e.Anon.Get("/boom/x")
	if a.Status != 500 || a.Text() != "Internal Server Error" || !strings.Contains(e.Log.String(), "request panicked") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := e.Anon.Get("/healthz"); a.Status != 200 {
		t.Errorf("after it: %d", a.Status)
	}
}

func TestNotReady(t *testing.T) {
	e := servertest.New(t, func(_ *servertest.ProvisionerConfig, c *servertest.ServerConfig) {
		c.Ready = func() error { return fmt.Errorf("images are loading") }
	})
	if a := e.Anon.Get("/healthz"); a.Status != 503 || a.Text() != "not ready: images are loading" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

func TestJSONForm(t *testing.T) {
	e := servertest.New(t)
	a := e.Admin.Get("version/")
	if !json.Valid(a.Body) || !strings.Contains(a.Text(), "\n    \"version\": \"") {
		t.Errorf("not JSON in four spaces: %s", a.Body)
	}
}
