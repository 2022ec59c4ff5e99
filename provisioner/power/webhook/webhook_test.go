package webhook

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ingot-metal/ingot/provisioner/power"
)

type hook struct {
	mu     sync.Mutex
	on     bool
	seen   []string
	auth   string
	status int
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("System_Id"))
	h.auth = r.Header.Get("Authorization")
	if h.status != 0 {
		w.WriteHeader(h.status)
		return
	}
	switch r.URL.Path {
	case "/on":
		h.on = true
	case "/off":
		h.on = false
	}
	fmt.Fprintf(w, `{"status": "%s"}`, map[bool]string{true: "running", false: "stopped"}[h.on])
}

func TestWebhook(t *testing.T) {
	h := &hook{}
	srv := httptest.NewTLSServer(h)
	defer srv.Close()
	p := power.Params{"power_on_uri": srv.URL + "/on", "power_off_uri": srv.URL + "/off", "power_query_uri": srv.URL + "/q",
		"power_user": "u", "power_pass": "s3cret", "system_id": "abc123"}
	d := Driver{}
	check := func(want power.State) {
		t.Helper()
		if st, err := d.Query(t.Context(), p); err != nil || st != want {
			t.Fatalf("%s, %v; want %s", st, err, want)
		}
	}
	check(power.Off)
	if err := d.On(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	check(power.On)
	if !strings.HasPrefix(h.auth, "Basic ") {
		t.Errorf("Authorization %q", h.auth)
	}
	h.seen = nil
	p["power_token"] = "tok"
	if err := d.Cycle(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(h.seen, ","), "GET /q abc123,POST /off abc123,POST /on abc123"; got != want {
		t.Errorf("cycle did %s, want %s", got, want)
	}
	if h.auth != "Bearer tok" {
		t.Errorf("Authorization %q", h.auth)
	}

	for status, want := range map[int]string{401: "Could not authenticate to node's BMC: power_off_uri answered 401 Unauthorized", 500: "Failed to complete power action: power_off_uri answered 500 Internal Server Error"} {
		h.status = status
		if err := d.Off(t.Context(), p); err == nil || err.Error() != want {
			t.Errorf("%d: %v", status, err)
		}
	}
	p["power_verify_ssl"] = "y"
	if err := d.Off(t.Context(), p); err == nil || !strings.HasPrefix(err.Error(), "Could not contact node's BMC: POST of power_off_uri") {
		t.Errorf("an unknown certificate was taken: %v", err)
	}
	for field, v := range map[string]string{"power_query_uri": "ftp://user:s3cret@x/", "power_on_regex": "("} {
		q := power.Params{}
		for k, v := range p {
			q[k] = v
		}
		q[field] = v
		if _, err := d.Query(t.Context(), q); err == nil || !strings.HasPrefix(err.Error(), "Missing or invalid power setting: "+field) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
