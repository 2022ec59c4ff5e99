package agent

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A machine that runs its system from memory must not stay off because its region was away when it started; one that is told that nobody
// knows it has nothing to wait for.
func TestRegionAway(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		tries  int
		then   string
	}{
		"away":    {http.StatusBadGateway, len(retryWaits) + 1 + patientTries, "reboot"},
		"refused": {http.StatusNotFound, 1, "poweroff"},
	} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				tries++
				w.WriteHeader(c.status)
			}))
			defer srv.Close()
			out, err := Run(t.Context(), Config{ConfigURL: srv.URL + "/preseed", Console: io.Discard, Unit: time.Microsecond, Root: t.TempDir()})
			if err == nil || out.Then != c.then || out.Step != "" || tries != c.tries {
				t.Errorf("%d tries, then %q: %v", tries, out.Then, err)
			}
		})
	}
}
