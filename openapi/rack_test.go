package openapi_test

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/ingot-metal/ingot/api"
)

// rack.yaml documents types that are written by hand in package api. This test holds the two together: the same names, the same
// fields, the same kinds, the same paths.
func TestRackDocument(t *testing.T) {
	raw, err := os.ReadFile("rack.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	types := map[string]reflect.Type{}
	for _, v := range []any{api.RackError{}, api.RackEnrol{}, api.RackEnrolled{}, api.RackHello{}, api.RackInterface{}, api.RackClaim{}, api.RackJobs{}, api.RackJob{},
		api.PowerOrder{}, api.JobHeartbeat{}, api.JobLease{}, api.JobResult{}, api.PowerResult{}, api.RackReports{}, api.LeaseReport{}, api.BootStep{}, api.Snapshot{},
		api.SnapSubnet{}, api.AddrRange{}, api.SnapHost{}, api.SnapMAC{}, api.BootImage{}, api.Content{},
		api.SnapFixed{}, api.ScanOrder{}, api.ScanResult{}, api.NeighbourReport{}, api.RackCache{}, api.ImagesOrder{}, api.ImagesResult{}} {
		types[reflect.TypeOf(v).Name()] = reflect.TypeOf(v)
	}
	for name := range doc.Components.Schemas {
		if types[name] == nil {
			t.Errorf("schema %s has no type", name)
		}
	}
	for name, ty := range types {
		ref := doc.Components.Schemas[name]
		if ref == nil {
			t.Errorf("type %s has no schema", name)
			continue
		}
		seen := map[string]bool{}
		for i := range ty.NumField() {
			f := ty.Field(i)
			key, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
			seen[key] = true
			p := ref.Value.Properties[key]
			if p == nil {
				t.Errorf("%s: the document has no %s", name, key)
				continue
			}
			if required := !strings.HasPrefix(opts, "omit"); required != slices.Contains(ref.Value.Required, key) {
				t.Errorf("%s.%s: always there is %v, required is %v", name, key, required, !required)
			}
			if got, want := kind(p.Value), goKind(f.Type); got != want {
				t.Errorf("%s.%s: %s in the document, %s in Go", name, key, got, want)
			}
		}
		for key := range ref.Value.Properties {
			if !seen[key] {
				t.Errorf("%s: the type has no %s", name, key)
			}
		}
	}
	want := []string{api.RackEnrolPath, api.RackHelloPath, api.RackSnapshotPath, api.RackClaimPath, api.RackJobsPath + "{id}/heartbeat", api.RackJobsPath + "{id}/result",
		api.RackReportsPath, api.RackCachePath, api.RackContentPath + "{sha256}"}
	got := doc.Paths.InMatchingOrder()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("paths %v, want %v", got, want)
	}
}

func kind(s *openapi3.Schema) string {
	switch {
	case s.Type.Is("array"):
		return "[]" + kind(s.Items.Value)
	case s.Type.Is("object"):
		return "object"
	case s.Type.Is("string") && s.Format == "date-time":
		return "time"
	}
	return strings.Join(s.Type.Slice(), " ")
}

func goKind(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.PkgPath() == "time":
		return "time"
	case t.Kind() == reflect.Slice:
		return "[]" + goKind(t.Elem())
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "object"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return "integer"
	}
	return t.Kind().String()
}
