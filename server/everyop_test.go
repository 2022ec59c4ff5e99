package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
)

// Every operation of the documents, called by everybody with nothing, with nonsense and with hostile text: each answer is of the
// API's own making, never a fault of ours, and the checker of servertest holds each to the document.
func TestEveryOperationAnswers(t *testing.T) {
	e := servertest.New(t)
	fillings := map[string]func(p api.Param) []string{
		"nothing":  func(api.Param) []string { return nil },
		"blank":    func(api.Param) []string { return []string{""} },
		"nonsense": func(api.Param) []string { return []string{"nonsense", "-1"} },
		"hostile": func(api.Param) []string {
			return []string{"' or 1=1 --\x01\u2028" + strings.Repeat("é", 300), "%s%n{{.}}$(id)", "99999999999999999999"}
		},
		"numbers": func(api.Param) []string { return []string{"9223372036854775807"} },
		"first choice": func(p api.Param) []string {
			if len(p.Choices) > 0 {
				return p.Choices[:1]
			}
			return map[api.Kind][]string{api.Int: {"1"}, api.Bool: {"true"}, api.DjBool: {"true"}, api.Float: {"1.5"}}[p.Kind]
		},
	}
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			for name, filling := range fillings {
				for who, caller := range map[string]*servertest.Caller{"nobody": e.Anon, "user": e.User, "admin": e.Admin} {
					if op.ID == "ingot_changes.read" && name != "nonsense" {
						continue // waits
					}
					path, form := h.Prefix+op.Path, url.Values{}
					for _, p := range op.Params {
						switch p.In {
						case api.Path:
							v := "1"
							if p.Kind == api.String && name == "hostile" {
								v = url.PathEscape("'\x01é\u2028")
							}
							path = strings.ReplaceAll(path, "{"+p.Name+"}", v)
						case api.Body:
						default:
							form[p.Name] = filling(p)
						}
					}
					query, body := url.Values{"op": {op.Op}}, ""
					if op.Method == http.MethodGet || op.Method == http.MethodDelete {
						for k, v := range form {
							query[k] = v
						}
					} else {
						body = form.Encode()
					}
					a := caller.Send(op.Method, path+"?"+query.Encode(), "application/x-www-form-urlencoded", strings.NewReader(body))
					where := who + " calls " + op.ID + " with " + name
					if a.Status >= 500 && a.Status != http.StatusNotImplemented && a.Status != http.StatusServiceUnavailable {
						t.Errorf("%s: %d %s", where, a.Status, a.Body)
					}
					switch {
					case who == "nobody" && !op.Anon && a.Status != 401 && a.Status != 400 && a.Status != 403:
						t.Errorf("%s: %d %s", where, a.Status, a.Body)
					case who == "user" && strings.HasPrefix(op.Permission, "perm:can_edit_") && op.Gone == "" && a.Status != 403:
						t.Errorf("%s: %d %s", where, a.Status, a.Body)
					}
				}
			}
		}
	}
	if log := e.Log.String(); strings.Contains(log, "request panicked") || strings.Contains(log, "request failed") {
		for _, line := range strings.Split(log, "\n") {
			if strings.Contains(line, "panicked") || strings.Contains(line, "request failed") {
				t.Error(line)
			}
		}
	}
}
