package cli

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/server/servertest"
)

// stub is another server.
func stub(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	hs := httptest.NewServer(h)
	t.Cleanup(hs.Close)
	return hs.URL
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	e := servertest.New(t)
	s := newShell(t)
	s.login("admin", e.URL, e.Admin.Key)
	id := s.machine("one", "52:54:00:00:00:01")
	s.login("user", e.URL, e.User.Key)
	for args, parts := range map[string][]string{
		"machine read nosuch":                         {"404 Not Found: No Machine matches the given query.", "`ingot machines list` shows"},
		"machine delete " + id:                        {"403 Forbidden", "(profile user) may not", "users whoami"},
		"machine deploy " + id + " --profile admin":   {"409 Conflict: Can't deploy a machine that is in the 'New' state", "`ingot machine read SYSTEM_ID`"},
		"machines list mac_address=x":                 {"400 Bad Request", "mac_address (--mac-address): 'x' is not a valid MAC address."},
		"machines list --server " + e.URL:             {"Unrecognised signature"},
		"users whoami --server " + e.URL:              {"401 Unauthorized", "needs an API key"},
		"users whoami --key a:b:c":                    {"401 Unauthorized", "Log in again", e.URL},
		"machines allocate":                           {"409 Conflict: No machine available."},
		"zones create --profile admin":                {"name (--name): This field is required."},
		"vm-hosts list":                               {"410 Gone", "is gone from the server's version"},
		"sshkeys create --profile admin key=nonsense": {"400 Bad Request", "--param-key"},
	} {
		s.fails(parts, strings.Fields(args)...)
	}
	// The key is in no message.
	secret := strings.Split(e.User.Key, ":")[2]
	if err := s.fails(nil, "users", "whoami", "--key", "a:b:"+secret); err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("the error shows the key: %v", err)
	}
}

// Why an allocate found nothing is told, whatever members the server's explanation has.
func TestAllocateExplained(t *testing.T) {
	e := servertest.New(t)
	s := newShell(t)
	s.login("admin", e.URL, e.Admin.Key)
	id := s.machine("one", "52:54:00:00:00:01")
	s.fails([]string{`No available machine matches constraints: [('mem', ['1024'])]`, id, "one"}, "machines", "allocate", "mem=1024")

	url := stub(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Ingot-Explain") != "1" {
			t.Error("it does not ask for the reason")
		}
		answer(409, "application/problem+json", `{"type": "about:blank", "status": 409, "title": "t", "detail": "Nothing matches.", "relax": "mem",
			"constraints": [{"name": "mem", "left": 0}, {"name": "zone", "left": 3}], "empty": [], "near": [{"system_id": "abc", "hostname": "one", "reasons": ["too small", "too slow"]}], "machines": [1,2,3,4,5,6,7,8,9,10,11,12]}`)(w, r)
	})
	err := s.fails([]string{"409 Conflict: Nothing matches.", "relax: mem", "name mem, left 0", "name zone, left 3", "abc (one): too small, too slow", "… and 2 more"}, "machines", "allocate", "--server", url)
	if err != nil && strings.Contains(err.Error(), "about:blank") {
		t.Errorf("noise: %v", err)
	}
	plain := stub(t, answer(409, "text/plain", "No machine available."))
	s.fails([]string{"409 Conflict: No machine available.", "machines list status=ready"}, "machines", "allocate", "--server", plain)
}

func TestErrorsOfTheNetwork(t *testing.T) {
	s := newShell(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	plain := stub(t, answer(404, "text/html", "<html>nothing</html>"))
	secure := httptest.NewUnstartedServer(answer(200, "application/json", "[]"))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	port := secure.URL[strings.LastIndex(secure.URL, ":"):]
	for server, parts := range map[string][]string{
		gone.URL:                           {"connection refused", "Is the server running"},
		"https" + plain[len("http"):]:      {"no TLS there", "use http://"},
		plain:                              {"404", "right server"},
		secure.URL:                         {"not trusted", "--ca-file"},
		"http" + secure.URL[len("https"):]: {"400", "use https://"},
		"http://no-such-host.invalid:80":   {"no such host"},
		"ftp://x":                          {"no address of a server"},
		"http://u:p@x":                     {"no user and password"},
	} {
		s.fails(parts, "zones", "list", "--server", server)
	}
	contains(t, s.ok("zones", "list", "--server", secure.URL, "--insecure"), "None.")
	contains(t, s.ok("zones", "list", "--server", secure.URL, "--ca-file", ca), "None.")
	s.fails([]string{"certificate is for"}, "zones", "list", "--server", "https://localhost"+port, "--ca-file", ca)
	s.fails([]string{"no PEM"}, "zones", "list", "--server", secure.URL, "--ca-file", os.Args[0])
	s.fails([]string{"Only Ingot"}, "machine", "timeline", "x", "--server", plain)
	s.fails([]string{"500", "log"}, "zones", "list", "--server", stub(t, answer(500, "text/plain", "boom")))
	s.fails([]string{"no JSON"}, "zones", "list", "--server", stub(t, answer(200, "application/json", "{")))
	s.fails([]string{"no JSON"}, "zones", "list", "--server", stub(t, answer(200, "application/json", strings.Repeat("[", 10000)+strings.Repeat("]", 10000))))
}

// What another server sends does not drive the terminal.
func TestCleanOutput(t *testing.T) {
	s := newShell(t)
	url := stub(t, answer(200, "application/json", `[{"system_id": "a\u001b[2Jb", "fqdn": "x\ty\nz", "memory": 1536, "storage": 1500000.0, "tag_names": ["p","q"], "pool": null, "zone": {"name": "\u202eevil"}}]`))
	out := s.ok("machines", "list", "--server", url)
	for _, bad := range []string{"\x1b", "\u202e", "x\ty"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q in %q", bad, out)
		}
	}
	contains(t, out, "1.5 GiB", "1.5 TB", "p, q")
	// Objects of unknown shape show what they have, nested ones by name.
	url = stub(t, answer(200, "application/json", `[{"resource_uri": "/x", "b.c": 1, "a": true, "o": {"name": "n"}, "l": [1, "2"]}]`))
	contains(t, s.ok("machines", "list", "--server", url), "B.C  A     O  L", "1    true  n  1, 2")
	if err := s.fails([]string{"gone"}, "zones", "list", "--server", stub(t, answer(404, "text/plain", "\x1b[2Jgone"))); err != nil && strings.Contains(err.Error(), "\x1b") {
		t.Errorf("the error drives the terminal: %q", err)
	}
}
