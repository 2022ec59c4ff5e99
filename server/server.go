// Package server is the HTTP face of the rules: it routes, authenticates, binds, calls one method of package provisioner an
// operation, and renders. Each resource has a file. The package knows the wire in every detail and decides nothing.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/openapi"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// Version is what version/ says of the MAAS API that is served; Subversion is Ingot's own.
const Version = "3.6.0"

// Config is what New needs. Provisioner is required; the rest has usable zero values.
type Config struct {
	Provisioner *provisioner.Service
	Log         *slog.Logger     // discards when nil
	Now         func() time.Time // time.Now when nil
	Subversion  string           // Ingot's version
	// MaxBody bounds a request body in bytes, raw uploads aside; 0: 64 MiB. Callers who show no credentials get MaxAnonBody (0: 1 MiB).
	MaxBody     int64
	MaxAnonBody int64
	// Ready is asked by /healthz; nil or a nil error means ready.
	Ready func() error
	// Observe is told of every request that reached an operation, after its answer; nil: nobody is. Metrics and tests use it.
	Observe func(Observation)
	// Mounts are handlers for whole prefixes beside the API, such as the metadata service at /MAAS/metadata/.
	Mounts []Mount
}

// Observation is what became of one request.
type Observation struct {
	TraceID   string
	Operation *api.Operation
	Status    int
	Took      time.Duration
}

// Mount hands every path below Prefix to Handler.
type Mount struct {
	Prefix  string // ends in a slash
	Handler http.Handler
}

// Server carries out the operations. Those that no method here overrides answer 501.
type Server struct {
	oapi.Unimplemented
	P *provisioner.Service

	config   Config
	log      *slog.Logger
	now      func() time.Time
	echo     *echo.Echo
	describe *describer
}

var _ oapi.Handlers = (*Server)(nil)

// New assembles the server.
func New(c Config) (*Server, error) {
	if c.Provisioner == nil {
		return nil, fmt.Errorf("server: Config.Provisioner is missing")
	}
	if c.MaxBody == 0 {
		c.MaxBody = 64 << 20
	}
	if c.MaxAnonBody == 0 {
		c.MaxAnonBody = 1 << 20
	}
	s := &Server{P: c.Provisioner, config: c, log: c.Log, now: c.Now, echo: echo.New()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	binders, err := newBinders()
	if err != nil {
		return nil, err
	}
	s.echo.Binder = binders
	if s.describe, err = newDescriber(); err != nil {
		return nil, err
	}
	s.routes()
	return s, nil
}

// Handler is the whole server.
func (s *Server) Handler() http.Handler { return s.echo }

func (s *Server) routes() {
	e := s.echo
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = s.fail
	e.Pre(s.trace, s.logRequests, s.recover, translateV1)
	for _, r := range oapi.Routes() {
		h := s.dispatch(r)
		e.Any(r.Echo, h)
		if r.OpEcho != "" {
			e.Any(r.OpEcho, h)
		}
	}
	get := func(path string, h echo.HandlerFunc) {
		e.Any(path, func(c echo.Context) error {
			if c.Request().Method != http.MethodGet {
				return notAllowed(http.MethodGet)
			}
			return h(c)
		})
	}
	get("/MAAS/api/version/", func(c echo.Context) error { return c.Blob(http.StatusOK, textType, []byte("2.0")) })
	get("/MAAS/api/", s.landing)
	get("/MAAS/api/2.0/describe/", s.describeAPI)
	get("/MAAS/api/2.0/openapi.yaml", document(openapi.MAAS))
	get("/ingot/v1/openapi.yaml", document(openapi.Ingot))
	get("/healthz", s.healthz)
	gone := func(echo.Context) error { return errV1Gone } // but for what translateV1 took away
	e.Any(v1Root, gone)
	e.Any(v1Root+"/*", gone)
	s.accountRoutes(e)
	for _, m := range s.config.Mounts {
		h := m.Handler
		e.Any(strings.TrimSuffix(m.Prefix, "/")+"/*", func(c echo.Context) error { h.ServeHTTP(c.Response(), c.Request()); return nil })
	}
	e.RouteNotFound("/*", func(c echo.Context) error { return unknownEndpoint(c) })
}

func unknownEndpoint(c echo.Context) error {
	path := c.Request().URL.Path
	if !strings.HasPrefix(path, "/MAAS/api/") && !strings.HasPrefix(path, "/ingot/") {
		return wireError{status: http.StatusNotFound, text: "Not Found"}
	}
	return wireError{status: http.StatusNotFound, text: "Unknown API endpoint: " + strings.ToValidUTF8(path, "\uFFFD") + "."}
}

func document(written []byte) echo.HandlerFunc {
	published := sync.OnceValues(func() ([]byte, error) { return openapi.Published(written) })
	return func(c echo.Context) error {
		b, err := published()
		if err != nil {
			return err
		}
		return c.Blob(http.StatusOK, "application/openapi+yaml", b)
	}
}

func (s *Server) healthz(c echo.Context) error {
	if s.config.Ready != nil {
		if err := s.config.Ready(); err != nil {
			return wireError{status: http.StatusServiceUnavailable, text: "not ready: " + err.Error()}
		}
	}
	return c.Blob(http.StatusOK, textType, []byte("ok"))
}

// background runs what must finish though the client is gone.
func background(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}
