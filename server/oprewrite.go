package server

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// dispatch serves one path. The order is MAAS's and clients see it: unknown path 404, credentials 401, unknown operation 400 or
// verb 405, removed 410, permission 403, parameters 400, then the rules.
func (s *Server) dispatch(r oapi.Route) echo.HandlerFunc {
	return func(c echo.Context) error {
		req := c.Request()
		path, pathOp, ok := pathValues(c, r)
		if !ok {
			return unknownEndpoint(c)
		}
		q := &request{path: path, query: parsePairs(req.URL.RawQuery), maas: r.Prefix == maasPrefix}
		c.Set(requestKey, q)
		s.apiHeaders(c, q)

		// Until the credentials are found good, nobody has said who sends the body: it is read first only where it holds or is
		// covered by them, and little of it.
		raw := rawBody(r.Handler, req)
		if limit := s.config.beforeLogin(req); !raw && limit > 0 {
			if err := q.readBody(req, limit); err != nil {
				return err
			}
		}
		old, _ := c.Get(v1Key).(v1)
		name, err := old.op(q, req.Method, pathOp)
		if err != nil {
			return err
		}
		variant := slices.Contains(r.Handler.AnonMethods, req.Method)
		op := findOp(r.Handler, req.Method, name)
		auth := api.Operation{Handler: r.Handler, Method: req.Method}
		if op != nil {
			auth = *op
		}
		auth.Anon = auth.Anon || variant
		ctx, err := s.authenticate(c, &auth)
		if err != nil {
			return err
		}
		ctx = api.WithBaseURL(ctx, baseURL(c))
		c.SetRequest(req.WithContext(ctx))
		actor := provisioner.ActorFrom(ctx)
		q.actor = actor
		if !raw && !q.read {
			limit := s.config.MaxBody
			if actor.Anonymous {
				limit = s.config.MaxAnonBody
			}
			if err := q.readBody(req, limit); err != nil {
				return err
			}
			if name, err = old.op(q, req.Method, pathOp); err != nil {
				return err
			}
			op = findOp(r.Handler, req.Method, name)
		}
		switch {
		case op == nil, op.AnonOnly && !actor.Anonymous:
			return noSuchOp(r.Handler, req.Method, name)
		case actor.Anonymous && !op.Anon && op.ID == "machines.accept":
			return wireError{status: http.StatusUnauthorized, text: "You must be logged in to accept machines."}
		case actor.Anonymous && !op.Anon:
			return noSuchOp(r.Handler, req.Method, name)
		case op.Gone != "":
			return wireError{status: http.StatusGone, text: op.Gone}
		}
		q.operation = op
		if err := permitted(op, actor); err != nil {
			return err
		}
		if f := q.query.Get("format"); f != "" && f != "json" && q.maas {
			return wireError{status: http.StatusBadRequest, text: "Invalid output format specified '" + f + "'."}
		}
		call := s.call
		if old != nil {
			call = s.callV1
		}
		return s.idempotent(c, q, func(ctx context.Context) (oapi.Response, error) { return call(ctx, c, q) })
	}
}

// maxSignedBody bounds a urlencoded body that an HMAC signature covers, and so is read before it is known to be good.
const maxSignedBody = 4 << 20

// beforeLogin is how much of the body to read before the caller is known; 0: nothing.
func (c *Config) beforeLogin(req *http.Request) int64 {
	auth := req.Header.Get("Authorization")
	switch {
	case strings.Contains(auth, "HMAC") && isForm(req):
		return min(c.MaxBody, maxSignedBody)
	case auth != "":
		return 0
	case req.Header.Get("Cookie") != "" && req.Header.Get(csrfHeader) != "":
		return 0
	}
	return c.MaxAnonBody // OAuth parameters or the CSRF token may be in the form
}

// call binds the parameters and runs the operation.
func (s *Server) call(ctx context.Context, c echo.Context, q *request) (oapi.Response, error) {
	call, ok := oapi.CallOf(q.operation)
	if !ok {
		return oapi.Response{}, oapi.Unbuilt(q.operation.ID)
	}
	params := call.New()
	if err := c.Bind(params); err != nil {
		return oapi.Response{}, err
	}
	return call.Do(s, ctx, params)
}

const (
	maasPrefix = "/MAAS/api/2.0"
	requestKey = "ingot.request"
)

// request is what the layers of one request share.
type request struct {
	path      url.Values
	query     keyvals
	form      keyvals
	files     []api.File
	read      bool // the body was read
	maas      bool // of the MAAS API
	operation *api.Operation
	actor     provisioner.Actor
}

// op is the operation's name: from the query, else from the form, else from the path. An empty one counts as absent: Juju's
// client posts "?op=" for plain creates.
func (q *request) op(path string) string {
	if op := q.query.Get("op"); op != "" {
		return op
	}
	if op := q.form.Get("op"); op != "" {
		return op
	}
	return path
}

// pathValues takes the path's parameters, and the operation that its last segment may name.
func pathValues(c echo.Context, r oapi.Route) (values url.Values, op string, ok bool) {
	values = url.Values{}
	escaped := c.Request().URL.RawPath != ""
	add := func(name, v string) bool {
		if escaped {
			if u, err := url.PathUnescape(v); err == nil {
				v = u
			}
		}
		if v == "" || strings.ContainsRune(v, 0) {
			return false
		}
		values.Set(name, v)
		return true
	}
	if r.Slashes {
		names := api.PathParams(r.Path)
		rest := c.Param("*")
		i := strings.LastIndexByte(rest, '/')
		if i <= 0 {
			return nil, "", false
		}
		if tail := rest[i+1:]; tail != "" {
			name, isOp := strings.CutPrefix(tail, "op-")
			if !isOp {
				return nil, "", false
			}
			op = name
		}
		return values, op, add(names[0], rest[:i])
	}
	for _, name := range c.ParamNames() {
		v := c.Param(name)
		if strings.Contains(v, "/") { // echo lets a last parameter swallow the rest
			return nil, "", false
		}
		if name == "op" {
			op = v
			continue
		}
		if !add(name, v) {
			return nil, "", false
		}
	}
	// Where the document says number, a word is no such path.
	for _, o := range r.Handler.Ops[:1] {
		for _, p := range o.Params {
			if v, has := values[p.Name]; has && p.In == api.Path && p.Kind == api.Int {
				if _, err := strconv.ParseInt(v[0], 10, 64); err != nil {
					return nil, "", false
				}
			}
		}
	}
	return values, op, true
}

func findOp(h *api.Handler, method, name string) *api.Operation {
	for _, o := range h.Ops {
		if o.Method == method && o.Op == name {
			return o
		}
	}
	return nil
}

func noSuchOp(h *api.Handler, method, name string) error {
	var allow []string
	for _, o := range h.Ops {
		if o.Method == method {
			if name == "" {
				name = "None"
			}
			return wireError{status: http.StatusBadRequest, text: "Unrecognised signature: method=" + method + " op=" + strings.ToValidUTF8(name, "\uFFFD")}
		}
		if !slices.Contains(allow, o.Method) {
			allow = append(allow, o.Method)
		}
	}
	sort.Strings(allow)
	return notAllowed(allow...)
}

func notAllowed(allow ...string) error {
	return wireError{status: http.StatusMethodNotAllowed, header: http.Header{"Allow": {strings.Join(allow, ", ")}}}
}

// rawBody says that the body is an upload's own bytes, which the operation reads itself.
func rawBody(h *api.Handler, req *http.Request) bool {
	for _, o := range h.Ops {
		if o.Method != req.Method {
			continue
		}
		for _, p := range o.Params {
			if p.In == api.Body {
				return true
			}
		}
	}
	return false
}

// permitted is the check that needs no object: who may call the operation at all. The rules check again, and check the object.
func permitted(op *api.Operation, a provisioner.Actor) error {
	if a.Anonymous {
		return nil
	}
	if name, ok := strings.CutPrefix(op.Permission, "perm:can_"); ok && !a.Can("can_"+name) {
		name = "can_" + name
		return wireError{status: http.StatusForbidden,
			text: "User does not have permission to perform this operation. The user should have permission '" + name + "'"}
	}
	if op.Permission == "admin" && !a.Admin || op.Permission == "internal" {
		return wireError{status: http.StatusForbidden}
	}
	return nil
}

func baseURL(c echo.Context) string { return c.Scheme() + "://" + c.Request().Host }
