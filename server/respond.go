package server

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
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

// write sends an answer. JSON goes out as it is rendered, so that a list of ten thousand machines is never held whole.
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
		return api.WriteJSON(c.Response(), r.Value)
	}
	_, err := c.Response().Write(r.Body)
	return err
}
