package server

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

const (
	textType = "text/plain; charset=utf-8"
	jsonType = "application/json; charset=utf-8"
)

// wireError is a failure of the wire itself: its status and text are already MAAS's.
type wireError struct {
	status int
	text   string
	header http.Header
}

func (e wireError) Error() string { return e.text }

// render turns an error into an answer. It is the one place where errors meet the wire. An error that it does not know is a
// fault of ours: 500 with a text that reveals nothing, and known is false so that the log gets it.
func render(err error) (r oapi.Response, known bool) {
	text := func(status int, s string) oapi.Response {
		return oapi.Response{Status: status, ContentType: textType, Body: []byte(s)}
	}
	var wire wireError
	var rule *provisioner.Error
	var unbuilt oapi.Unbuilt
	var http4 *echo.HTTPError
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &wire):
		r = text(wire.status, wire.text)
		r.Header = wire.header
		if wire.status == http.StatusUnauthorized {
			r = r.With("WWW-Authenticate", `OAuth realm="OAuth"`)
		}
		return r, true
	case errors.As(err, &rule):
		return ruleError(rule)
	case errors.As(err, &unbuilt):
		return text(http.StatusNotImplemented, unbuilt.Error()), true
	case errors.As(err, &big):
		return text(http.StatusRequestEntityTooLarge, "The request body is too large."), true
	case errors.Is(err, storage.ErrNotFound):
		return text(http.StatusNotFound, "Not Found"), true
	case errors.Is(err, storage.ErrInvalid):
		return text(http.StatusBadRequest, "A value holds a character that is not allowed."), true
	case errors.Is(err, storage.ErrStale):
		return text(http.StatusConflict, "Conflict: somebody changed this at the same time. Try again.").With("Retry-After", "5"), true
	case errors.Is(err, storage.ErrConflict):
		return text(http.StatusConflict, "Conflict: this exists already, or something still refers to it."), true
	case errors.As(err, &http4):
		if http4.Code == http.StatusMethodNotAllowed {
			return text(http4.Code, ""), true
		}
		if http4.Code < 500 {
			return text(http4.Code, http.StatusText(http4.Code)), true
		}
	case errors.Is(err, context.DeadlineExceeded):
		return text(http.StatusGatewayTimeout, "Timed out."), true
	case errors.Is(err, context.Canceled):
		return text(http.StatusServiceUnavailable, "The request was given up."), true
	}
	return text(http.StatusInternalServerError, "Internal Server Error"), false
}

func ruleError(e *provisioner.Error) (oapi.Response, bool) {
	status := map[provisioner.Kind]int{
		provisioner.Invalid: http.StatusBadRequest, provisioner.Unauthorized: http.StatusUnauthorized, provisioner.Forbidden: http.StatusForbidden,
		provisioner.NotFound: http.StatusNotFound, provisioner.Conflict: http.StatusConflict, provisioner.Gone: http.StatusGone,
		provisioner.Unbuilt: http.StatusNotImplemented, provisioner.Unavailable: http.StatusServiceUnavailable, provisioner.Timeout: http.StatusGatewayTimeout,
	}[e.Kind]
	if status == 0 {
		return oapi.Response{Status: http.StatusInternalServerError, ContentType: textType, Body: []byte("Internal Server Error")}, false
	}
	r := oapi.Response{Status: status, ContentType: textType, Body: []byte(e.Text)}
	if len(e.Fields) > 0 {
		r = oapi.Response{Status: status, ContentType: "application/json", Value: e.Fields, IsJSON: true}
	}
	switch status {
	case http.StatusUnauthorized:
		r = r.With("WWW-Authenticate", `OAuth realm="OAuth"`)
	case http.StatusServiceUnavailable:
		r = r.With("Retry-After", "10") // as MAAS: clients wait that long and try again
	}
	return r, true
}

// fail is echo's error handler: it renders what a handler returned.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed {
		s.log.Warn("request failed after its answer began", "error", err, "path", c.Request().URL.Path)
		return
	}
	r, known := render(err)
	if !known {
		s.log.Error("request failed", "error", err, "method", c.Request().Method, "path", c.Request().URL.Path, "trace_id", c.Response().Header().Get(traceHeader))
	}
	if werr := write(c, r); werr != nil {
		s.log.Debug("answer not delivered", "error", werr)
	}
}
