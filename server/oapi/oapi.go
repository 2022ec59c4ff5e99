// Package oapi is the strict face of the documents: one method an operation, its parameters bound, its answer a value. What is
// generated here knows the names; package server knows how requests become calls, and carries them out.
package oapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// Response is what an operation answers. Make one with JSON, Text, NoContent, Bytes, Stream or Null.
type Response struct {
	Status      int
	ContentType string
	Header      http.Header // further headers, or nil
	// Value is rendered as JSON when IsJSON; otherwise Body is written as it is.
	Value  any
	IsJSON bool
	Body   []byte
}

// JSON answers a value as JSON.
func JSON(status int, v any) (Response, error) {
	return Response{Status: status, ContentType: "application/json; charset=utf-8", Value: v, IsJSON: true}, nil
}

// Text answers a plain text.
func Text(status int, s string) (Response, error) {
	return Response{Status: status, ContentType: "text/plain; charset=utf-8", Body: []byte(s)}, nil
}

// NoContent answers 204. It has a content type all the same: MAAS's command line wants one.
func NoContent() (Response, error) {
	return Response{Status: http.StatusNoContent, ContentType: "text/plain; charset=utf-8"}, nil
}

// Bytes answers 200 with a body of some type.
func Bytes(contentType string, b []byte) (Response, error) {
	return Response{Status: http.StatusOK, ContentType: contentType, Body: b}, nil
}

// Null answers 200 with the JSON null.
func Null() (Response, error) { return JSON(http.StatusOK, nil) }

// With adds a header to an answer.
func (r Response) With(key, value string) Response {
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Add(key, value)
	return r
}

// Unbuilt is the error of an operation that nobody carries out yet, by its id.
type Unbuilt string

func (e Unbuilt) Error() string {
	return fmt.Sprintf("%s is not built yet; openapi/divergences.md lists what is missing", string(e))
}

func unbuilt(id string) (Response, error) { return Response{}, Unbuilt(id) }

// Call is one operation ready to be called: New makes its params struct, Do calls the method with it.
type Call struct {
	New func() any // *api.XParams
	Do  func(h Handlers, ctx context.Context, params any) (Response, error)
}

func bind[P any](method func(Handlers, context.Context, P) (Response, error)) Call {
	return Call{
		New: func() any { return new(P) },
		Do: func(h Handlers, ctx context.Context, params any) (Response, error) {
			return method(h, ctx, *params.(*P))
		},
	}
}

// CallOf finds an operation's call; not ok for operations that are gone.
func CallOf(o *api.Operation) (Call, bool) { c, ok := calls[o.ID]; return c, ok }

// Route is a path that echo routes, with what it serves.
type Route struct {
	Handler *api.Handler
	Prefix  string
	Path    string // of the document, below the prefix
	Echo    string // as echo writes it, prefix included
	// OpEcho is the form of the path that names the operation; "" where the path has no end slash.
	OpEcho string
	// Slashes: the path's only parameter may hold slashes, so Echo ends in a wildcard that takes the rest, op form included.
	Slashes bool
}

// Routes are all paths of all documents.
func Routes() []Route {
	var routes []Route
	for _, h := range api.Handlers {
		seen := map[string]bool{}
		for _, o := range h.Ops {
			for _, path := range append([]string{o.Path}, o.Aliases...) {
				if seen[path] {
					continue
				}
				seen[path] = true
				r := Route{Handler: h, Prefix: h.Prefix, Path: path, Slashes: slashes(o)}
				switch {
				case r.Slashes:
					r.Echo = h.Prefix + path[:strings.IndexByte(path, '{')] + "*"
				default:
					r.Echo = h.Prefix + strings.NewReplacer("{", ":", "}", "").Replace(path)
					if strings.HasSuffix(path, "/") {
						r.OpEcho = r.Echo + "op-:op"
					}
				}
				routes = append(routes, r)
			}
		}
	}
	return routes
}

func slashes(o *api.Operation) bool {
	for _, p := range o.Params {
		if p.Slashes {
			return true
		}
	}
	return false
}
