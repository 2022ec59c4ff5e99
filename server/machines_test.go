package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/power"
	"github.com/ingot-metal/ingot/server"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// described is a driver that only tells its schema: the region needs no more.
type described struct{ power.Driver }

func (described) Describe() power.Type {
	return power.Type{Name: "ipmi", Queryable: true, Fields: []power.Field{{Name: "power_address", Label: "IP address", Required: true},
		{Name: "power_pass", Label: "Password", Secret: true}, {Name: "power_user", Label: "User"}}}
}

func withDrivers(p *servertest.ProvisionerConfig, _ *servertest.ServerConfig) {
	p.Power = map[string]power.Driver{"ipmi": described{}}
}

func expect(t *testing.T, a servertest.Answer, status int, part string) {
	t.Helper()
	if a.Status != status || !strings.Contains(a.Text(), part) {
		t.Fatalf("%d %s\nwant %d %s", a.Status, a.Text(), status, part)
	}
}

func TestMachines(t *testing.T) {
	e := servertest.New(t, withDrivers)
	const machines = "/MAAS/api/2.0/machines/"
	create := []string{"hostname", "one", "architecture", "amd64", "mac_addresses", "52:54:00:00:00:01", "power_type", "ipmi",
		"power_parameters_power_address", "10.0.0.1", "power_parameters_power_pass", "s3cret", "commission", "false"}
	a := e.Admin.Post(machines, create...)
	expect(t, a, 200, `"status_name": "New"`)
	var m api.Machine
	a.Into(t, &m)
	if m.FQDN != "one.maas" || *m.Architecture != "amd64/generic" || m.BootInterface == nil || len(m.SystemID) != 6 {
		t.Fatalf("%+v", m)
	}
	if strings.Contains(a.Text(), "s3cret") {
		t.Fatal("the password is in the answer")
	}
	one := machines + m.SystemID + "/"
	for _, c := range []struct {
		what   string
		answer servertest.Answer
		status int
		part   string
	}{
		{"mac in use", e.Admin.Post(machines, "architecture", "amd64", "mac_addresses", "52-54-00-00-00-01"), 400, "MAC address 52:54:00:00:00:01 already in use on one."},
		{"bad mac", e.Admin.Post(machines, "architecture", "amd64", "mac_addresses", "invalid"), 400, "One or more MAC addresses is invalid. ('invalid' is not a valid MAC address.)"},
		{"no arch", e.Anon.Post(machines, "mac_addresses", "52:54:00:00:00:99"), 400, `"This field is required."`},
		{"hwe in arch", e.Admin.Post(machines, "architecture", "amd64/hwe-22.04", "mac_addresses", "52:54:00:00:00:98"), 400, "min_hwe_kernel"},
		{"double subarch", e.Admin.Post(machines, "architecture", "amd64/generic", "subarchitecture", "generic", "mac_addresses", "52:54:00:00:00:98"), 400, "Subarchitecture cannot be specified twice."},
		{"power type", e.Admin.Post(machines, "architecture", "amd64", "mac_addresses", "52:54:00:00:00:98", "power_type", "magic"), 400, "Select a valid choice. magic is not one of the available choices."},
		{"power param", e.Admin.Post(machines, "architecture", "amd64", "mac_addresses", "52:54:00:00:00:98", "power_type", "manual", "power_parameters_unknown_param", "1"), 400, "Unknown parameter(s): unknown_param."},
		{"hostname", e.Admin.Put(one, "hostname", "."), 400, "DNS name contains an empty label."},
		{"foreign field", e.Admin.Put(one, "commission", "true", "mac_addresses", "x"), 200, ""},
		{"swap", e.Admin.Put(one, "swap_size", "5K"), 200, `"swap_size": 5000`},
		{"swap bad", e.Admin.Put(one, "swap_size", "5E"), 400, "Invalid size for swap: 5E"},
		{"user puts", e.User.Put(one, "description", "x"), 403, ""},
		{"unknown", e.Admin.Get(machines + "zzzzzz/"), 404, "No Machine matches the given query."},
		{"anon list", e.Anon.Get(machines), 400, ""},
		{"filter", e.Admin.Get(machines + "?foo=1"), 400, `"No such constraint."`},
		{"filter mac", e.Admin.Get(machines + "?mac_address=00:E0:81:DD:D1:ZZ"), 400, "'00:E0:81:DD:D1:ZZ' is not a valid MAC address."},
		{"filter zone", e.Admin.Get(machines + "?zone=unknown"), 400, ""},
		{"by id", e.Admin.Get(machines + "?id=" + m.SystemID + "&id=zzz"), 200, m.SystemID},
		{"none", e.Admin.Get(machines + "?id=zzz"), 200, "[]"},
		{"registered", e.Admin.Get(machines + "?op=is_registered&mac_address=525400000001"), 200, "true"},
		{"registered anon", e.Anon.Get(machines + "?op=is_registered&mac_address=52:54:00:00:00:01,52:54:00:00:00:77"), 200, "false"},
		{"params user", e.User.Get(one + "?op=power_parameters"), 403, ""},
		{"params", e.Admin.Get(one + "?op=power_parameters"), 200, "s3cret"},
		{"all params", e.Admin.Get(machines + "?op=power_parameters"), 200, m.SystemID},
		{"all params user", e.User.Get(machines + "?op=power_parameters"), 403, ""},
		{"allocate none", e.User.Post(machines + "?op=allocate"), 409, "No machine available."},
		{"allocate name", e.User.Post(machines+"?op=allocate", "name", "h"), 409, `No available machine matches constraints: [('name', ['h'])] (resolved to "name=h")`},
		{"allocate order", e.User.Send(http.MethodPost, machines+"?op=allocate", "application/x-www-form-urlencoded", strings.NewReader("mem=1024&cpu_count=2")), 409, `[('mem', ['1024']), ('cpu_count', ['2'])] (resolved to "cpu_count=2.0 mem=1024.0")`},
		{"allocate id", e.User.Post(machines+"?op=allocate", "system_id", "xyz", "mem", "1"), 409, "No machine with system ID xyz available."},
		{"allocate bogus", e.User.Post(machines+"?op=allocate", "bogus", "1"), 400, `"No such constraint."`},
		{"allocate cpu", e.User.Post(machines+"?op=allocate", "cpu_count", "plenty"), 400, "Invalid CPU count: number required."},
		{"allocate mem", e.User.Post(machines+"?op=allocate", "mem", "bags"), 400, "Invalid memory: number of MiB required."},
		{"allocate arch", e.User.Post(machines+"?op=allocate", "arch", "sparc"), 400, "Architecture not recognised."},
		{"allocate tags", e.User.Post(machines+"?op=allocate", "tags", "b a"), 400, "No such tag(s): 'a', 'b'."},
		{"allocate zone", e.User.Post(machines+"?op=allocate", "zone", "x"), 400, "No such zone(s): x."},
		{"allocate pool", e.User.Post(machines+"?op=allocate", "pool", "x"), 400, "No such pool(s): x."},
		{"allocate subnets", e.User.Post(machines+"?op=allocate", "subnets", "1.2.3.0/24"), 400, "No matching subnets found."},
		{"allocate space", e.User.Post(machines+"?op=allocate", "subnets", "space:x"), 404, "No Space matches the given query."},
		{"allocate kvm", e.User.Post(machines+"?op=allocate", "install_kvm", "true"), 400, "Support for install_kvm allocation parameter has been removed."},
		{"deploy new", e.Admin.Post(one + "?op=deploy"), 409, "Can't deploy a machine that is in the 'New' state"},
		{"release new", e.Admin.Post(one + "?op=release"), 409, "Machine cannot be released in its current state ('New')."},
		{"release many", e.Admin.Post(machines+"?op=release", "machines", m.SystemID), 409, fmt.Sprintf("Machine(s) cannot be released in their current state: %s ('New').", m.SystemID)},
		{"release unknown", e.Admin.Post(machines+"?op=release", "machines", "qqq"), 400, "Unknown machine(s): qqq."},
		{"abort", e.Admin.Post(one + "?op=abort"), 409, "Cannot abort in current state: node " + m.SystemID + " is in state New."},
		{"lock", e.Admin.Post(one + "?op=lock"), 409, ""},
		{"unlock", e.Admin.Post(one + "?op=unlock"), 409, "Machine is not locked"},
		{"fixed", e.Admin.Post(one + "?op=mark_fixed"), 409, "Can't mark a non-broken node as 'Ready'."},
		{"broken", e.User.Post(one + "?op=mark_broken"), 403, ""},
		{"power_on", e.Admin.Post(one + "?op=power_on"), 409, "Can't start node: it hasn't been allocated."},
		{"accept anon", e.Anon.Post(machines+"?op=accept", "machines", m.SystemID), 401, "You must be logged in to accept machines."},
		{"accept user", e.User.Post(machines+"?op=accept", "machines", m.SystemID), 403, "You don't have the required permission to accept the following machine(s): " + m.SystemID + "."},
		{"accept unknown", e.Admin.Post(machines+"?op=accept", "machines", "qqq"), 400, "Unknown machine(s): qqq."},
		{"accept_all user", e.User.Post(machines + "?op=accept_all"), 200, "[]"},
		{"commission user", e.User.Post(one + "?op=commission"), 403, ""},
		{"nodes", e.Admin.Get("/MAAS/api/2.0/nodes/"), 200, one},
		{"node", e.Admin.Get("/MAAS/api/2.0/nodes/" + m.SystemID + "/"), 200, one},
		{"node post", e.Admin.Post("/MAAS/api/2.0/nodes/" + m.SystemID + "/"), 405, ""},
		{"accept", e.Admin.Post(machines+"?op=accept", "machines", m.SystemID), 200, `"status_name": "Commissioning"`},
		{"accept again", e.Admin.Post(machines+"?op=accept", "machines", m.SystemID), 200, "[]"},
		{"commission again", e.Admin.Post(one + "?op=commission"), 400, "current state"},
		{"foreign", e.User.Get(one), 403, ""},
		{"abort it", e.Admin.Post(one + "?op=abort"), 200, `"status_name": "New"`},
		{"delete user", e.User.Delete(one), 403, ""},
		{"delete", e.Admin.Delete(one), 204, ""},
		{"gone", e.Admin.Get(one), 404, ""},
	} {
		t.Run(c.what, func(t *testing.T) { expect(t, c.answer, c.status, c.part) })
	}
	a = e.Anon.Post(machines, "architecture", "amd64/generic", "mac_addresses", "52:54:00:00:01:01,52:54:00:00:01:02", "commission", "True", "power_type", "ipmi",
		"power_parameters", `{"power_address": "10.0.0.9", "power_user": "maas", "power_pass": "x"}`)
	expect(t, a, 200, `"status_name": "Commissioning"`)
	var anon map[string]any
	a.Into(t, &anon)
	if len(anon) != 14 {
		t.Fatalf("%d keys: %v", len(anon), anon)
	}
	b := e.Anon.Post(machines, "architecture", "amd64/generic", "mac_addresses", "52:54:00:00:01:02", "commission", "True")
	var again map[string]any
	b.Into(t, &again)
	if again["system_id"] != anon["system_id"] {
		t.Fatalf("enlisted twice: %v", again)
	}
}

// BenchmarkMachineList is GET machines/ at ten thousand machines: query, rendering and writing.
func BenchmarkMachineList(b *testing.B) {
	db := storagetest.New(b)
	e := servertest.On(b, db, withDrivers)
	storagetest.Fleet(b, db, 10000)
	s, err := server.New(server.Config{Provisioner: e.P}) // without the check against the documents
	if err != nil {
		b.Fatal(err)
	}
	hs := httptest.NewServer(s.Handler())
	b.Cleanup(hs.Close)
	for b.Loop() {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, hs.URL+"/MAAS/api/2.0/machines/", nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", servertest.Authorization(e.Admin.Key))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		n, err := discard(res)
		if err != nil || res.StatusCode != 200 || n < 10<<20 {
			b.Fatal(res.Status, n, err)
		}
		b.SetBytes(n)
	}
}

func discard(res *http.Response) (int64, error) {
	defer func() { _ = res.Body.Close() }()
	buf, total := make([]byte, 64<<10), int64(0)
	for {
		n, err := res.Body.Read(buf)
		total += int64(n)
		if err != nil {
			if err.Error() == "EOF" {
				err = nil
			}
			return total, err
		}
	}
}
