package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// fuzzSite is a server with something of everything, without the check of answers: a handler and a caller.
func fuzzSite(f *testing.F) (http.Handler, *world) {
	w := newWorld(f)
	s, err := server.New(server.Config{Provisioner: w.P})
	if err != nil {
		f.Fatal(err)
	}
	n := w.deployable(storage.StatusReady)
	n.addDisk("sdb", 50e9, "ssd")
	w.node(storage.NodeDevice, 0, ownedBy(w.user))
	w.node(storage.NodeRack, 0)
	w.deployable(storage.StatusAllocated, ownedBy(w.admin))
	w.vlan(10)
	w.admin.post("spaces/", "name=space").code(200)
	w.admin.post("tags/", "name=tag").code(200)
	w.admin.post("domains/", "name=example.com").code(200)
	w.admin.post("dnsresources/", "fqdn=www.example.com", "ip_addresses=10.0.0.77").code(200)
	return s.Handler(), w
}

// ask sends a request past the network.
func ask(t *testing.T, h http.Handler, as *servertest.Caller, method, path string, query, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil
	}
	u.RawQuery = query.Encode()
	r := httptest.NewRequest(method, "/", strings.NewReader(form.Encode()))
	r.URL = u
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", servertest.Authorization(as.Key))
	a := httptest.NewRecorder()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // some wait for a BMC as long as their caller does
	defer cancel()
	begin := time.Now()
	h.ServeHTTP(a, r.WithContext(ctx))
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("%s %s %v %v: took %s, and its caller was gone after 3", method, path, query, form, took)
	}
	if a.Code >= 500 && a.Code != http.StatusNotImplemented && a.Code != http.StatusServiceUnavailable && a.Code != http.StatusGatewayTimeout {
		t.Errorf("%s %s %v %v: %d %s", method, path, query, form, a.Code, a.Body)
	}
	return a
}

// The constraints of allocate and the filters of lists have grammars of their own. A dry run changes nothing, so that an input that
// fails does so again.
func FuzzConstraints(f *testing.F) {
	names := []string{"name", "system_id", "arch", "not_arch", "cpu_count", "cpu_speed", "mem", "link_speed", "tags", "not_tags", "zone", "not_in_zone", "pool", "not_in_pool",
		"subnets", "not_subnets", "vlans", "not_vlans", "fabrics", "not_fabrics", "fabric_classes", "not_fabric_classes", "storage", "interfaces", "devices", "power_state",
		"agent_name", "hostname", "mac_address", "domain", "id", "status", "owner", "deployment_target", "pod", "parent", "simple_status", "bogus"}
	for i, text := range []string{"root:8,1:10(ssd)", "a:10(ssd,partition),20", "needed:fabric=ubuntu,space=1;x:vid=3,not_vid=4", "eth:subnet_cidr=10.0.0.0/16,mode=unconfigured",
		"vendor_id=8086,product_id=1", "space:space", "cidr:10.0.0.0/16", "ip:10.0.0.1", "vlan:vid:10", "fabric:fabric-0,vid:0", "1e309", "0x10", "amd64/generic", "a&&b", "::", "(", "storage=:(", "\u2028"} {
		f.Add(uint8(22+i%3), text, uint8(i), text)
		f.Add(uint8(14+i%8), text, uint8(6), "1")
	}
	h, w := fuzzSite(f)
	f.Fuzz(func(t *testing.T, i uint8, a string, j uint8, b string) {
		x, y := names[int(i)%len(names)], names[int(j)%len(names)]
		form := url.Values{}
		form.Add(x, a)
		form.Add(y, b)
		ask(t, h, w.admin.Caller, "GET", "/MAAS/api/2.0/machines/", form, nil)
		form.Set("dry_run", "true")
		form.Set("verbose", "true")
		ask(t, h, w.user.Caller, "POST", "/MAAS/api/2.0/machines/", url.Values{"op": {"allocate"}}, form)
	})
}

// Any operation with any two of its parameters replaced. What goes before changes what comes after: an input that fails may need the
// ones before it.
func FuzzCall(f *testing.F) {
	var ops []*api.Operation
	for _, x := range api.Handlers {
		for _, op := range x.Ops {
			if op.Gone == "" && op.ID != "ingot_changes.read" { // which waits
				ops = append(ops, op)
			}
		}
	}
	for i := range ops {
		f.Add(uint16(i), uint8(0), "1", uint8(1), "1")
		f.Add(uint16(i), uint8(1), "sda", uint8(2), "10.0.0.0/16")
	}
	h, w := fuzzSite(f)
	f.Fuzz(func(t *testing.T, n uint16, i uint8, a string, j uint8, b string) {
		op := ops[int(n)%len(ops)]
		values := map[string]string{}
		for _, p := range op.Params {
			values[p.Name] = plausible(op, p)
		}
		optional := map[string]bool{}
		for k, text := range map[uint8]string{i: a, j: b} {
			if len(op.Params) > 0 {
				p := op.Params[int(k)%len(op.Params)]
				values[p.Name], optional[p.Name] = text, true
			}
		}
		path, form := op.Handler.Prefix+op.Path, url.Values{}
		for _, p := range op.Params {
			switch {
			case p.In == api.Path:
				path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(values[p.Name]))
			case p.In != api.Body && (p.Required || optional[p.Name]):
				form.Set(p.Name, values[p.Name])
			}
		}
		query := url.Values{}
		if op.Method == http.MethodGet || op.Method == http.MethodDelete {
			query, form = form, nil
		}
		if op.Op != "" {
			query.Set("op", op.Op)
		}
		ask(t, h, w.admin.Caller, op.Method, path, query, form)
	})
}

// plausible is a value that leads an operation to something that exists.
func plausible(op *api.Operation, p api.Param) string {
	switch p.Name {
	case "system_id":
		return map[string]string{"device": "node02", "rack_controller": "node03"}[strings.Split(op.ID, ".")[0]] + map[bool]string{true: "node01"}[!strings.HasPrefix(op.ID, "device.") && !strings.HasPrefix(op.ID, "rack_controller.")]
	case "vlan_id", "vlan":
		return "5001"
	case "fabric_id", "vid":
		return "0"
	case "name":
		return "tag"
	case "username":
		return "other"
	case "mac_address", "mac_addresses", "mac":
		return "52:54:00:aa:bb:cc"
	case "ip", "ip_address", "start_ip", "end_ip", "gateway_ip":
		return "10.0.0.99"
	case "cidr":
		return "10.5.0.0/24"
	case "fstype":
		return "ext4"
	case "fqdn":
		return "x.example.com"
	case "url":
		return "http://127.0.0.1:1/"
	}
	if len(p.Choices) > 0 {
		return p.Choices[0]
	}
	if p.Kind == api.String && p.In != api.Path {
		return fmt.Sprintf("x%s", p.Name)
	}
	return "1"
}
