package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// Of MAAS's API 1.0 the calls of knife-maas and chef-provisioning-maas are answered: those of nodes/ below, by the operations of 2.0 that
// took their place, with the fields that are read of the answer. Everything else is gone, as in MAAS 2.0.

const (
	v1Root = "/MAAS/api/1.0"
	v1Key  = "ingot.v1"
)

// v1Ops are the operations of 1.0 by verb and name, and what each is called now.
var (
	v1Nodes = map[string]string{"GET list": "", "POST acquire": "allocate"}
	v1Node  = map[string]string{"GET ": "", "GET details": "details", "POST start": "deploy", "POST stop": "power_off", "POST release": "release",
		"POST commission": "commission"}
	v1Delete = map[string]string{"DELETE delete": ""}
)

var errV1Gone = wireError{status: http.StatusGone, text: "The 1.0 API is no longer available. Please use API version 2.0."}

// translateV1 sends the paths of nodes to those of machines before they are routed. chef-provisioning-maas writes two slashes.
func translateV1(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		rest, ok := strings.CutPrefix(r.URL.Path, v1Root+"/")
		if rest, ok = cutWord(strings.TrimLeft(rest, "/"), ok); !ok {
			return next(c)
		}
		id := strings.Trim(rest, "/")
		if strings.Contains(id, "/") || strings.HasPrefix(id, "op-") {
			return next(c)
		}
		*r = *r.WithContext(context.WithValue(r.Context(), sentKey{}, asked{r.Method, r.URL}))
		u := *r.URL
		u.Path, u.RawPath = maasPrefix+"/machines/", ""
		ops := v1Nodes
		if id != "" {
			u.Path, ops = u.Path+id+"/", v1Node
		}
		if r.Method == http.MethodPost && id != "" && parsePairs(u.RawQuery).Get("op") == "delete" {
			r.Method, ops = http.MethodDelete, v1Delete
		}
		r.URL = &u // the router looks at this very request
		c.Set(v1Key, v1(ops))
		return next(c)
	}
}

// asked is what a request was before it was translated: the client's signature covers that.
type (
	asked struct {
		method string
		url    *url.URL
	}
	sentKey struct{}
)

// asSent is a request as the client made it.
func asSent(r *http.Request) *http.Request {
	was, ok := r.Context().Value(sentKey{}).(asked)
	if !ok {
		return r
	}
	out := *r
	out.Method, out.URL = was.method, was.url
	return &out
}

func cutWord(path string, ok bool) (string, bool) {
	rest, found := strings.CutPrefix(path, "nodes")
	return rest, ok && found && (rest == "" || rest[0] == '/')
}

// v1 is set on requests of 1.0: what its operations are called now.
type v1 map[string]string

// op is the name that the operation of a request has now. Requests of 2.0 keep theirs. An error says that it is gone; before the body was
// read, where the name may be, that is not sure.
func (v v1) op(q *request, method, path string) (string, error) {
	name := q.op(path)
	if v == nil {
		return name, nil
	}
	now, ok := v[method+" "+name]
	if !ok && (name != "" || q.read || method == http.MethodGet) {
		return "", errV1Gone
	}
	return now, nil
}

// callV1 runs the operation that took the place of one of 1.0, and answers as 1.0 did.
func (s *Server) callV1(ctx context.Context, c echo.Context, q *request) (oapi.Response, error) {
	if q.operation.ID == "machine.deploy" {
		// start deployed a machine that was acquired, and switched on one that was deployed.
		b, err := s.P.Machine(ctx, q.path.Get("system_id"))
		if err != nil {
			return oapi.Response{}, err
		}
		if st := b.Node.Status; st != storage.StatusAllocated && st != storage.StatusReady {
			q.operation = findOp(q.operation.Handler, http.MethodPost, "power_on")
		}
	}
	r, err := s.call(ctx, c, q)
	if err != nil {
		return r, err
	}
	switch v := r.Value.(type) {
	case api.Machine:
		r.Value = v1Machine{v}
	case api.Parts:
		r.Value = api.Parts(func() (any, error) {
			part, err := v()
			if list, ok := part.([]api.Machine); ok && err == nil {
				return each(list, func(m api.Machine) v1Machine { return v1Machine{m} }), nil
			}
			return part, err
		})
	}
	return r, nil
}

// v1Machine is a machine as 1.0 showed it: status for what matters, substatus for all of it. Here both are the same.
type v1Machine struct{ api.Machine }

// MarshalJSON implements json.Marshaler.
func (m v1Machine) MarshalJSON() ([]byte, error) {
	m.ResourceURI = v1Root + "/nodes/" + m.SystemID + "/"
	var b bytes.Buffer
	if err := api.WriteJSON(&b, m.Machine); err != nil {
		return nil, err
	}
	extra, err := json.Marshal(struct {
		Substatus        int64   `json:"substatus"`
		SubstatusName    string  `json:"substatus_name"`
		SubstatusAction  *string `json:"substatus_action"`
		SubstatusMessage *string `json:"substatus_message"`
	}{m.Status, m.StatusName, m.StatusAction, m.StatusMessage})
	if err != nil {
		return nil, err
	}
	body := bytes.TrimSuffix(bytes.TrimSpace(b.Bytes()), []byte("}"))
	return append(append(append([]byte{}, body...), ','), extra[1:]...), nil
}
