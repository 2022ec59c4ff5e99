package server

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// apiHeaders are on every answer of the API, errors included.
func (s *Server) apiHeaders(c echo.Context, q *request) {
	h := c.Response().Header()
	h.Add("Vary", "Authorization")
	h.Add("Vary", "Cookie")
	h.Set("X-Frame-Options", "DENY")
	if q.maas {
		h.Set("X-MAAS-API-Hash", s.describe.hash)
	}
}

// write sends an answer. JSON goes out as it is rendered, so that a long text is never held whole.
func write(c echo.Context, r oapi.Response) error {
	h := c.Response().Header()
	for k, vs := range r.Header {
		for _, v := range vs {
			h.Add(k, v)
		}
	}
	h.Set("Content-Type", r.ContentType)
	c.Response().WriteHeader(r.Status)
	if c.Request().Method == http.MethodHead || r.Status == http.StatusNoContent {
		return nil
	}
	if r.IsJSON {
		err := api.WriteJSON(c.Response(), r.Value)
		if _, parts := r.Value.(api.Parts); parts && err != nil {
			return cutShort{err}
		}
		return err
	}
	_, err := c.Response().Write(r.Body)
	return err
}

// cutShort says that a list broke off after its answer had begun.
type cutShort struct{ error }

// listed answers a list of nodes that comes a part at a time, each part rendered when it goes out: ten thousand machines are never held
// at once. The first part is read before anything is sent, so that what is wrong with the request still gets its status.
func listed[T any](next provisioner.Pages, render func([]*storage.Bundle) []T) (oapi.Response, error) {
	page, err := next()
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, api.Parts(func() (any, error) {
		if len(page) == 0 && page != nil {
			if page, err = next(); err != nil {
				return nil, err
			}
		}
		if page == nil {
			return nil, nil
		}
		few := min(len(page), renderFew)
		out := render(page[:few])
		clear(page[:few]) // what went out is not held until the rest of the part has
		page = page[few:]
		return out, nil
	}))
}

// renderFew is how many nodes of a list are rendered at once.
const renderFew = 25

// rendered is the form that listed wants of what renders one node.
func rendered[T any](render func(*storage.Bundle) T) func([]*storage.Bundle) []T {
	return func(list []*storage.Bundle) []T { return each(list, render) }
}
