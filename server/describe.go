package server

import (
	"context"
	"crypto/sha1" //nolint:gosec // a digest that clients compare, as MAAS makes it; nothing rests on it
	"encoding/hex"
	"encoding/json"
	"net/http"
	"sort"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
)

// capabilities are what clients ask version/ for: Juju refuses servers without network-deployment-ubuntu.
var capabilities = []string{
	"networks-management", "static-ipaddresses", "ipv6-deployment-ubuntu", "devices-management", "storage-deployment-ubuntu",
	"network-deployment-ubuntu", "bridging-interface-ubuntu", "bridging-automatic-ubuntu", "authenticate-api",
}

// VersionRead says which MAAS API this is, and which Ingot.
func (s *Server) VersionRead(context.Context, api.VersionReadParams) (oapi.Response, error) {
	return oapi.JSON(http.StatusOK, api.Version{Capabilities: capabilities, Version: Version, Subversion: s.config.Subversion})
}

// The describe document. Fields are in the order of their keys: the document is sorted.
type description struct {
	Doc       string          `json:"doc"`
	Handlers  []*descHandler  `json:"handlers"`
	Hash      string          `json:"hash"`
	Resources []*descResource `json:"resources"`
}

type descResource struct {
	Anon *descHandler `json:"anon"`
	Auth *descHandler `json:"auth"`
	Name string       `json:"name"`
}

type descHandler struct {
	Actions []descAction `json:"actions"`
	Doc     string       `json:"doc"`
	Name    string       `json:"name"`
	Params  []string     `json:"params"`
	Path    string       `json:"path"`
	URI     string       `json:"uri,omitempty"`
}

type descAction struct {
	Doc     string  `json:"doc"`
	Method  string  `json:"method"`
	Name    string  `json:"name"`
	Op      *string `json:"op"`
	Restful bool    `json:"restful"`
}

// describer renders the describe document: a digest of it is on every answer, and each URL under which the server is known has
// its own copy of the text.
type describer struct {
	hash string

	mu     sync.Mutex // guards byBase
	byBase map[string][]byte
}

func newDescriber() (*describer, error) {
	b, err := json.Marshal(describe("", ""))
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum(b) //nolint:gosec // see the import
	return &describer{hash: hex.EncodeToString(sum[:]), byBase: map[string][]byte{}}, nil
}

func (d *describer) document(base string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.byBase[base]; b != nil {
		return b, nil
	}
	b, err := json.Marshal(describe(base, d.hash))
	if err != nil {
		return nil, err
	}
	if len(d.byBase) >= 16 { // the host is the caller's word: keep few
		clear(d.byBase)
	}
	d.byBase[base] = b
	return b, nil
}

func describe(base, hash string) description {
	d := description{Doc: "MAAS API", Hash: hash}
	var anon, auth []*descHandler
	for _, h := range api.Handlers {
		if h.Prefix != maasPrefix || h.Hidden {
			continue
		}
		r := &descResource{Name: h.Name}
		open := true // no operation needs a login
		for _, o := range h.Ops {
			open = open && o.Anon
		}
		if open {
			r.Anon = describeHandler(h, h.Name, base, func(*api.Operation) bool { return true })
		} else {
			r.Auth = describeHandler(h, h.Name, base, func(o *api.Operation) bool { return !o.AnonOnly })
			if len(h.AnonMethods) > 0 {
				r.Anon = describeHandler(h, anonName(h.Name), base, func(o *api.Operation) bool { return o.Anon })
			}
		}
		if r.Anon != nil {
			anon = append(anon, r.Anon)
		}
		if r.Auth != nil {
			auth = append(auth, r.Auth)
		}
		d.Resources = append(d.Resources, r)
	}
	sort.Slice(d.Resources, func(i, j int) bool { return d.Resources[i].Name < d.Resources[j].Name })
	d.Handlers = append(anon, auth...)
	return d
}

// anonName is the class of the anonymous variant; all but machines and files share one.
func anonName(name string) string {
	if name == "MachinesHandler" || name == "FilesHandler" {
		return "Anon" + name
	}
	return "AnonNodesHandler"
}

func describeHandler(h *api.Handler, name, base string, with func(*api.Operation) bool) *descHandler {
	path := h.Ops[0].Path
	d := &descHandler{Actions: []descAction{}, Doc: h.Doc, Name: name, Params: api.PathParams(path), Path: h.Prefix + path}
	if d.Params == nil {
		d.Params = []string{}
	}
	if base != "" {
		d.URI = base + d.Path
	}
	for _, o := range h.Ops {
		if !with(o) {
			continue
		}
		a := descAction{Doc: actionDoc(o), Method: o.Method, Name: o.Action(), Restful: o.Op == ""}
		if o.Op != "" {
			a.Op = &o.Op
		}
		d.Actions = append(d.Actions, a)
	}
	sort.Slice(d.Actions, func(i, j int) bool { return d.Actions[i].Name < d.Actions[j].Name })
	return d
}

// actionDoc is an action's text. The command line takes "key=value" only where the part after the first blank line has a :param.
func actionDoc(o *api.Operation) string {
	var b strings.Builder
	b.WriteString(o.Title + "\n\n")
	if o.Doc != "" {
		b.WriteString(o.Doc + "\n\n")
	}
	kinds := map[api.Kind]string{api.Int: "Integer", api.Float: "Float", api.Binary: "File", api.String: "String"}
	for _, p := range o.Params {
		if p.In == api.Path {
			continue
		}
		need := "Optional"
		if p.Required {
			need = "Required"
		}
		kind, ok := kinds[p.Kind]
		if !ok {
			kind = "Boolean"
		}
		b.WriteString(":param " + p.Name + ": " + need + ". " + p.Doc)
		if len(p.Choices) > 0 {
			b.WriteString(". One of: " + strings.Join(p.Choices, ", "))
		}
		b.WriteString("\n:type " + p.Name + ": " + kind + "\n\n")
	}
	for _, p := range o.Dynamic {
		name := strings.NewReplacer("{", "", "}", "").Replace(p.Name)
		b.WriteString(":param " + name + ": Optional. " + p.Doc + "\n:type " + name + ": String\n\n")
	}
	return b.String()
}

func (s *Server) describeAPI(c echo.Context) error {
	b, err := s.describe.document(baseURL(c))
	if err != nil {
		return err
	}
	// Exactly this type: the command line compares the whole header.
	c.Response().Header().Set("Content-Type", "application/json")
	c.Response().Header().Add("Vary", "Host")
	c.Response().WriteHeader(http.StatusOK)
	_, err = c.Response().Write(b)
	return err
}

func (s *Server) landing(c echo.Context) error {
	type link struct {
		Path  string `json:"path"`
		Rel   string `json:"rel"`
		Type  string `json:"type"`
		Title string `json:"title"`
		Href  string `json:"href"`
	}
	base := baseURL(c)
	at := func(path, rel, kind, title string) link { return link{path, rel, kind, title, base + path} }
	r, err := oapi.JSON(http.StatusOK, map[string]any{
		"title":       "Ingot",
		"description": "API landing page",
		"resources": []link{
			at("/MAAS/api/", "self", "application/json", "this document"),
			at("/MAAS/api/2.0/", "service", "application/json", "the MAAS API"),
			at("/MAAS/api/2.0/openapi.yaml", "service-desc", "application/openapi+yaml", "the API definition"),
			at("/MAAS/api/2.0/describe/", "service-desc", "application/json", "the description that MAAS's command line reads"),
			at("/ingot/v1/openapi.yaml", "service-desc", "application/openapi+yaml", "the definition of Ingot's own API"),
		},
	})
	if err != nil {
		return err
	}
	return write(c, r)
}
