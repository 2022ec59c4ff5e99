package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

func TestDomains(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{admin, "POST", "domains/", "name=lab.example&forward_dns_servers=10.0.0.1", 400, "A domain cannot be both authoritative and have forward DNS servers."},
		{admin, "POST", "domains/", "name=fwd.example&authoritative=false&forward_dns_servers=10.0.0.1 x", 400, "Invalid IP address: x; provide a list"},
		{admin, "POST", "domains/", "name=fwd.example&authoritative=false&forward_dns_servers=10.0.0.1, [2001:db8::1]:53", 200, `"authoritative": false`},
		{admin, "PUT", "domains/fwd.example/", "authoritative=true", 400, "forward DNS servers"},
		{admin, "PUT", "domains/fwd.example/", "authoritative=true&forward_dns_servers=", 200, `"authoritative": true`},
		{admin, "POST", "domains/", "name=MAAS-internal", 400, "Domain name cannot duplicate maas internal domain name."},
		{admin, "POST", "domains/", "name=-bad-.x", 400, "Invalid domain name"},
		{admin, "POST", "domains/", "name=" + strings.Repeat("a.", 130), 400, "Domain name length cannot exceed 253 characters."},
		{admin, "POST", "domains/", "name=fwd.example", 400, "Domain with this Name already exists."},
		{user, "GET", "domains/0/", "", 200, `"resource_record_count": 1`},

		{admin, "POST", "domains/?op=set_serial", "serial=0", 400, `{ "serial": [ "Ensure this value is greater than or equal to 1." ] }`},
		{admin, "POST", "domains/?op=set_serial", "serial=4294967296", 400, "less than or equal to 4294967295"},
		{admin, "POST", "domains/?op=set_serial", "serial=x", 400, "serial"},
		{admin, "POST", "domains/?op=set_serial", "", 400, "This field is required."},
		{admin, "POST", "domains/?op=set_serial", "serial=1", 200, "null"},
		{admin, "POST", "domains/?op=set_serial", "serial=4294967295", 200, "null"},
		{user, "POST", "domains/?op=set_serial", "serial=1", 403, "can_edit_global_entities"},

		{user, "POST", "domains/fwd.example/?op=set_default", "", 403, ""},
		{admin, "POST", "domains/nowhere/?op=set_default", "", 404, "No Domain matches the given query."},
		{admin, "POST", "domains/fwd.example/?op=set_default", "", 200, `"is_default": true`},
		{admin, "GET", "domains/0/", "", 200, `"is_default": false`},
		{admin, "GET", "machines/abc123/", "", 200, `"fqdn": "host-abc123.fwd.example"`},
		{admin, "DELETE", "domains/fwd.example/", "", 400, "This domain is the default domain, it cannot be deleted."},
		{admin, "POST", "machines/", "hostname=newcomer&architecture=amd64&mac_addresses=52:54:00:99:00:01&power_type=manual&commission=false", 200, `"fqdn": "newcomer.fwd.example"`},
		{admin, "POST", "domains/0/?op=set_default", "", 200, `"is_default": true`},
		{admin, "GET", "machines/abc123/", "", 200, `"fqdn": "host-abc123.maas"`},

		{admin, "POST", "dnsresources/", "fqdn=a.fwd.example", 200, ""},
		{admin, "DELETE", "domains/fwd.example/", "", 400, "there are DNS resources in it"},
	})
}

func TestDNSResources(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	nic := addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{admin, "POST", "subnets/", "cidr=10.1.0.0/24", 200, ""},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.1.0.200&end_ip=10.1.0.250", 200, ""},
		{admin, "POST", "domains/", "name=sub.maas", 200, ""},
		{admin, "POST", "dnsresources/", "", 400, "Either name and domain (or fqdn) must be specified"},
		{admin, "POST", "dnsresources/", "name=a", 400, "Either name and domain (or fqdn) must be specified"},
		{user, "POST", "dnsresources/", "fqdn=a.maas", 403, "can_edit_global_entities"},
		{e.Anon, "GET", "dnsresources/", "", 401, ""},
		{admin, "POST", "dnsresources/", "fqdn=a.unknown", 404, "No Domain matches the given query."},
		{admin, "POST", "dnsresources/", "name=a&domain=nope", 404, "No Domain matches the given query."},
		{admin, "POST", "dnsresources/", "fqdn=a.maas&ip_addresses=10.1.0.300", 400, `{ "ip_addresses": [ "'10.1.0.300' is not a valid IP address." ] }`},
		{admin, "POST", "dnsresources/", "fqdn=a.maas&ip_addresses=9999", 400, "Select a valid choice. 9999 is not one of the available choices."},
		{admin, "POST", "dnsresources/", "fqdn=a.maas&ip_addresses=10.1.0.210", 400, "inside a dynamic range of subnet '10.1.0.0/24'"},
		{admin, "POST", "dnsresources/", "fqdn=a.maas&address_ttl=-1", 400, "greater than or equal to 0"},
		{admin, "POST", "dnsresources/", "fqdn=a.maas&address_ttl=2147483648", 400, "less than or equal to 2147483647"},
		{admin, "POST", "dnsresources/", "fqdn=a.maas&address_ttl=x", 400, "address_ttl"},
		{admin, "POST", "dnsresources/", "fqdn=under score.maas", 400, "Invalid dnsresource name: under score."},
		{admin, "POST", "dnsresources/", "fqdn=a.maas&ip_addresses=10.1.0.5 2001:db8::5&address_ttl=60", 200, `"fqdn": "a.maas"`},
		{admin, "POST", "dnsresources/", "name=a&domain=maas", 400, "Labels must be unique within their zone."},
		{admin, "POST", "dnsresources/", "name=a&domain=0", 400, "Labels must be unique within their zone."},
		{admin, "POST", "dnsresources/", "fqdn=x.sub.maas", 200, `"ip_addresses": []`}, // the longest domain
		{admin, "POST", "dnsresources/", "fqdn=y.z.maas", 200, `"fqdn": "y.z.maas"`},
		{admin, "POST", "dnsresources/", "fqdn=maas&ip_addresses=10.1.0.5", 200, `"fqdn": "maas"`}, // the domain itself, a shared address
		{user, "GET", "dnsresources/?fqdn=a.maas", "", 200, `"ip": "10.1.0.5"`},
		{user, "GET", "dnsresources/?fqdn=a.maas", "", 200, `"alloc_type_name": "User reserved"`},
		{user, "GET", "dnsresources/?domain=sub.maas", "", 200, `"fqdn": "x.sub.maas"`},
		{user, "GET", "dnsresources/?domain=nope", "", 404, "No Domain matches the given query."},
		{user, "GET", "dnsresources/?name=nope", "", 200, "[]"},
		{user, "GET", "dnsresources/?rrtype=aaaa", "", 200, `"fqdn": "a.maas"`},
		{user, "GET", "dnsresources/1/", "", 200, `"address_ttl": 60`},
		{user, "GET", "dnsresources/99/", "", 404, "No DNSResource matches the given query."},
		{user, "PUT", "dnsresources/1/", "name=b", 403, ""},
		{admin, "PUT", "dnsresources/99/", "name=b", 404, "No DNSResource matches the given query."},
		{admin, "PUT", "dnsresources/1/", "name=b&address_ttl=", 200, `"fqdn": "b.maas"`},
		{admin, "GET", "dnsresources/1/", "", 200, `"address_ttl": null`},
		{admin, "PUT", "dnsresources/1/", "domain=sub.maas", 200, `"fqdn": "b.sub.maas"`},
		{admin, "PUT", "dnsresources/1/", "ip_addresses=10.1.0.6", 200, `"ip": "10.1.0.6"`},
		{admin, "PUT", "dnsresources/1/", "ip_addresses=", 200, `"ip_addresses": []`},
		{admin, "PUT", "dnsresources/1/", "fqdn=c.maas", 200, `"fqdn": "c.maas"`},
		{user, "DELETE", "dnsresources/1/", "", 403, ""},
		{admin, "DELETE", "dnsresources/1/", "", 204, ""},
		{admin, "DELETE", "dnsresources/1/", "", 404, "No DNSResource matches the given query."},
	})

	// A machine's name, that of its second interface's address, and a reserved address without a name follow by themselves.
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		for i, ip := range []string{"10.1.0.30", "10.1.0.31", "2001:db8::30"} {
			a := storage.IPAddress{InterfaceID: &nic.ID, IP: addr(ip), AllocType: storage.AllocSticky}
			if i == 1 {
				a.AllocType = storage.AllocAuto
			}
			if err := tx.InsertIPAddress(&a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var list []api.DNSResource
	admin.Get("dnsresources/?all=true").Into(t, &list)
	got := map[string]string{}
	for _, r := range list {
		if r.ID != -1 {
			continue
		}
		if r.IPAddresses != nil {
			t.Errorf("%s has ip_addresses %v", r.FQDN, *r.IPAddresses)
		}
		for _, x := range r.ResourceRecords {
			m := x.(map[string]any)
			got[r.FQDN] += m["rrtype"].(string) + " " + m["rrdata"].(string) + ";"
			if strings.HasSuffix(r.FQDN, "host-abc123.maas") && (m["system_id"] != "abc123" || m["node_type"] != 0.0) {
				t.Errorf("%s: %v", r.FQDN, m)
			}
		}
	}
	want := map[string]string{"host-abc123.maas": "A 10.1.0.30;AAAA 2001:db8::30;", "eth0.host-abc123.maas": "A 10.1.0.31;", "10-1-0-6.maas": "A 10.1.0.6;"}
	for name, records := range want {
		if got[name] != records {
			t.Errorf("%s: %q, want %q", name, got[name], records)
		}
	}
	if len(list) <= len(want) {
		t.Errorf("%d names: those that people made are missing", len(list))
	}
	run(t, []step{
		{admin, "GET", "dnsresources/?all=true&fqdn=host-abc123.maas&rrtype=AAAA", "", 200, `"rrdata": "2001:db8::30"`},
		{user, "GET", "dnsresources/?all=true&fqdn=10-1-0-6.maas", "", 200, "[]"}, // another's
	})
}

func TestDNSRecords(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	run(t, []step{
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrdata=x", 400, "No provided rrtype!"},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=TXT", 400, "No provided rrdata!"},
		{admin, "POST", "dnsresourcerecords/", "rrtype=TXT&rrdata=x", 400, "Either name and domain (or fqdn) must be specified"},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.none&rrtype=TXT&rrdata=x", 404, "No Domain matches the given query."},
		{user, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=TXT&rrdata=x", 403, "can_edit_global_entities"},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=A&rrdata=10.0.0.1", 400, "A is not one of the available choices"},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=CNAME&rrdata=two words", 400, "Invalid CNAME: Should be '<server>'."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=MX&rrdata=70000 mail", 400, "Invalid MX: Should be '<preference> <server>'. Range for preference is 0-65535."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=MX&rrdata=mail", 400, "Invalid MX"},
		{admin, "POST", "dnsresourcerecords/", "fqdn=_x._tcp.maas&rrtype=SRV&rrdata=1 2 3", 400, "Invalid SRV: Should be '<priority> <weight> <port> <server>'."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=x.maas&rrtype=SRV&rrdata=1 2 3 h", 400, "Invalid SRV: Name should be '_service._protocol[.label]'."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=SSHFP&rrdata=1 1 xyz", 400, "Invalid SSHFP: Should be '<algorithm> <fptype> <fingerprint>'."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=NS&rrdata=-", 400, "Invalid NS: Should be '<server>'."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=TXT&rrdata=x&ttl=-1", 400, "greater than or equal to 0"},
		{admin, "GET", "dnsresources/", "", 200, "[]"}, // what failed left no name behind

		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=txt&rrdata=v=spf1 -all&ttl=60", 200, `"rrtype": "TXT"`},
		{admin, "POST", "dnsresourcerecords/", "name=a&domain=maas&rrtype=MX&rrdata=10 mail.maas.", 200, `"fqdn": "a.maas"`},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=TXT&rrdata=second&ttl=61", 400, "TTL of 61 differs from other resource records TTL of 60."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=a.maas&rrtype=CNAME&rrdata=b.maas", 400, "CNAME records for a name cannot coexist with non-CNAME records."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=c.maas&rrtype=CNAME&rrdata=b.maas", 200, `"rrdata": "b.maas"`},
		{admin, "POST", "dnsresourcerecords/", "fqdn=c.maas&rrtype=CNAME&rrdata=d.maas", 400, "Only one CNAME can be associated with a name."},
		{admin, "POST", "dnsresourcerecords/", "fqdn=_sip._tcp.maas&rrtype=SRV&rrdata=0 0 5060 sip.maas", 200, `"fqdn": "_sip._tcp.maas"`},
		{admin, "POST", "dnsresourcerecords/", "fqdn=maas&rrtype=SSHFP&rrdata=4 2 " + strings.Repeat("ab", 32), 200, `"fqdn": "maas"`},
	})
	var names []api.DNSResource
	admin.Get("dnsresources/").Into(t, &names)
	ids := map[string]string{}
	for _, n := range names {
		ids[n.FQDN] = fmt.Sprintf("dnsresources/%d/", n.ID)
	}
	records := func(rrtype string) string {
		var list []api.DNSResourceRecord
		admin.Get("dnsresourcerecords/?rrtype="+rrtype).Into(t, &list)
		if len(list) != 1 {
			t.Fatalf("%d records of type %s", len(list), rrtype)
		}
		return fmt.Sprintf("dnsresourcerecords/%d/", list[0].ID)
	}
	txt, mx := records("TXT"), records("MX")
	run(t, []step{
		{admin, "PUT", ids["c.maas"], "ip_addresses=10.0.0.9", 400, "Cannot add address: CNAME present."},
		{user, "GET", "dnsresourcerecords/?rrtype=TXT", "", 200, `"rrdata": "v=spf1 -all"`},
		{user, "GET", "dnsresourcerecords/?rrtype=txt", "", 200, "[]"}, // exact here, upper case in dnsresources
		{user, "GET", "dnsresourcerecords/?domain=none", "", 404, "No Domain matches the given query."},
		{user, "GET", "dnsresources/?fqdn=a.maas", "", 200, `"rrdata": "10 mail.maas."`},
		{user, "GET", txt, "", 200, `"ttl": 60`},
		{user, "GET", "dnsresourcerecords/99/", "", 404, "No DNSData matches the given query."},
		{user, "PUT", txt, "ttl=", 403, ""},
		{admin, "PUT", txt, "ttl=", 200, `"ttl": null`},
		{admin, "PUT", txt, "rrdata=new text", 200, `"rrdata": "new text"`},
		{admin, "PUT", txt, "rrtype=MX", 400, "Invalid MX"},
		{user, "DELETE", txt, "", 403, ""},
		{admin, "DELETE", txt, "", 204, ""},
		{admin, "GET", ids["a.maas"], "", 200, `"rrtype": "MX"`}, // the name stays while it has a record
		{admin, "DELETE", mx, "", 204, ""},
		{admin, "GET", ids["a.maas"], "", 404, "No DNSResource matches the given query."},
		{admin, "DELETE", mx, "", 404, "No DNSData matches the given query."},
		{admin, "GET", "domains/0/", "", 200, `"resource_record_count": 3`},
	})
	if a := admin.Send(http.MethodPost, "dnsresourcerecords/", "application/x-www-form-urlencoded", strings.NewReader("fqdn=n.maas&rrtype=TXT&rrdata=a%0Ab")); a.Status != 400 {
		t.Errorf("a line end in a record: %d %s", a.Status, a.Text())
	}
}

// The number of statements of the lists does not grow with what they list.
func TestDNSListsAreConstant(t *testing.T) {
	e := servertest.New(t)
	counts := func() int64 {
		ctx, counter := storage.WithCounter(provisioner.WithActor(t.Context(), provisioner.Actor{User: e.Admin.User, Admin: true}))
		if _, err := e.P.DNSResources(ctx, provisioner.DNSFilter{}, true); err != nil {
			t.Fatal(err)
		}
		if _, err := e.P.DNSRecords(ctx, provisioner.DNSFilter{}); err != nil {
			t.Fatal(err)
		}
		return counter.N()
	}
	var few int64
	for i := range 30 {
		name := string(rune('a'+i%26)) + strings.Repeat("x", i)
		if a := e.Admin.Post("dnsresourcerecords/", "fqdn", name+".maas", "rrtype", "TXT", "rrdata", "x"); a.Status != 200 {
			t.Fatal(a.Text())
		}
		if a := e.Admin.Post("dnsresources/", "fqdn", name+".y.maas", "ip_addresses", "10.0.0."+string(rune('1'+i%9))); a.Status != 200 {
			t.Fatal(a.Text())
		}
		if i == 2 {
			few = counts()
		}
	}
	if many := counts(); many != few || few == 0 {
		t.Errorf("%d statements with few names, %d with many", few, many)
	}
}
