package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/labstack/echo/v4"
)

const traceHeader = "MAAS-trace-id"

// trace gives each request an id, the caller's own when it has one.
func (s *Server) trace(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(traceHeader)
		if !printable(id) {
			var b [16]byte
			_, _ = rand.Read(b[:]) // never fails (crypto/rand)
			id = hex.EncodeToString(b[:])
		}
		c.Response().Header().Set(traceHeader, id)
		return next(c)
	}
}

func printable(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// recover keeps a panic in one request: it is logged, answered 500, and nobody else notices.
func (s *Server) recover(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.log.Error("request panicked", "panic", fmt.Sprint(p), "path", c.Request().URL.Path, "stack", string(debug.Stack()))
				err = wireError{status: http.StatusInternalServerError, text: "Internal Server Error"}
			}
		}()
		return next(c)
	}
}

// logRequests writes one line a request. It says nothing of query or body: keys and passwords travel there.
func (s *Server) logRequests(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		begin := time.Now()
		err := next(c)
		if err != nil {
			c.Error(err)
		}
		req, res := c.Request(), c.Response()
		took := time.Since(begin)
		attrs := []slog.Attr{
			slog.String("method", req.Method), slog.String("path", req.URL.Path), slog.Int("status", res.Status), slog.Int64("bytes", res.Size),
			slog.Duration("took", took), slog.String("trace_id", res.Header().Get(traceHeader)), slog.String("peer", req.RemoteAddr),
		}
		if q, ok := c.Get(requestKey).(*request); ok {
			if q.operation != nil {
				attrs = append(attrs, slog.String("operation", q.operation.ID))
				if s.config.Observe != nil {
					s.config.Observe(Observation{res.Header().Get(traceHeader), q.operation, res.Status, took})
				}
			}
			if q.actor.User.Username != "" {
				attrs = append(attrs, slog.String("user", q.actor.User.Username))
			}
		}
		level := slog.LevelInfo
		if req.URL.Path == "/healthz" {
			level = slog.LevelDebug // asked every second by those who wait
		}
		s.log.LogAttrs(req.Context(), level, "request", attrs...)
		var short cutShort
		if errors.As(err, &short) {
			panic(http.ErrAbortHandler) // the caller must not take what came for the whole
		}
		return nil
	}
}
