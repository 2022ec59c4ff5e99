package servertest

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

// The checker itself: what the documents promise passes, and each way to break a promise is found.
func TestChecker(t *testing.T) {
	c := newChecker(t)
	const zone = `{"resource_uri": "/z", "id": 1, "name": "n", "description": ""}`
	for name, x := range map[string]struct {
		id, kind, body string
		status         int
		fault          string // "" for none
	}{
		"good":                {"zone.read", "application/json; charset=utf-8", zone, 200, ""},
		"good list":           {"zones.list", "application/json", "[" + zone + "]", 200, ""},
		"good null":           {"machine.power_off", "application/json", "null", 200, ""},
		"good text":           {"maas.set_config", "text/plain; charset=utf-8", "OK", 200, ""},
		"good failure":        {"zone.read", "text/plain", "No Zone matches the given query.", 404, ""},
		"good field errors":   {"zones.create", "application/json", `{"name": ["x"]}`, 400, ""},
		"no type":             {"zone.delete", "", "", 204, "without Content-Type"},
		"field missing":       {"zone.read", "application/json", `{"id": 1}`, 200, "missing"},
		"field of wrong type": {"zone.read", "application/json", strings.Replace(zone, "1", `"1"`, 1), 200, "integer"},
		"null list":           {"zones.list", "application/json", "null", 200, "ullable"},
		"text for JSON":       {"zone.read", "text/plain", "OK", 200, "ontent"},
		"other success":       {"zone.read", "application/json", zone, 201, "promised is 200"},
		"fault of ours":       {"zone.read", "text/plain", "Internal Server Error", 500, "status 500"},
		"broken field errors": {"zones.create", "application/json", `{"name"`, 400, "broken JSON"},
		"time of wrong form":  {"ingot_machine_timeline.read", "application/json", `[{"id":1,"mac":"","rack":"","purpose":"","steps":[],"verdict":"","started":"2026-01-01","updated":"2026-01-01T00:00:00.000Z"}]`, 200, "format"},
	} {
		t.Run(name, func(t *testing.T) {
			op := api.Lookup(x.id)
			w := httptest.NewRecorder()
			if x.kind != "" {
				w.Header().Set("Content-Type", x.kind)
			}
			rec := &recorder{ResponseWriter: w, status: x.status}
			rec.body.WriteString(x.body)
			err := c.check(httptest.NewRequest(op.Method, "/", nil), op, rec)
			if x.fault == "" && err != nil || x.fault != "" && (err == nil || !strings.Contains(err.Error(), x.fault)) {
				t.Errorf("got %v, want %q", err, x.fault)
			}
		})
	}
}
