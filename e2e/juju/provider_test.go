package juju

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/juju/names/v5"
	"github.com/juju/version/v2"

	"github.com/juju/juju/api"
	"github.com/juju/juju/cloud"
	"github.com/juju/juju/cloudconfig/instancecfg"
	"github.com/juju/juju/controller"
	corebase "github.com/juju/juju/core/base"
	"github.com/juju/juju/core/constraints"
	"github.com/juju/juju/core/instance"
	"github.com/juju/juju/core/network"
	"github.com/juju/juju/core/status"
	"github.com/juju/juju/environs"
	"github.com/juju/juju/environs/cloudspec"
	"github.com/juju/juju/environs/config"
	envcontext "github.com/juju/juju/environs/context"
	"github.com/juju/juju/environs/instances"
	"github.com/juju/juju/environs/tags"
	_ "github.com/juju/juju/provider/maas"
	"github.com/juju/juju/tools"
)

const (
	controllerUUID = "7ea9c4f0-0b1a-4c51-8a4c-2f1f5a0e0001"
	modelUUID      = "7ea9c4f0-0b1a-4c51-8a4c-2f1f5a0e0002"
)

// callContext says how to tell Juju that a credential is no good any more.
type callContext = envcontext.ProviderCallContext

// model is a Juju model on a site.
type model struct {
	t   *testing.T
	s   *site
	env environs.Environ
	net environs.NetworkingEnviron
	ctx callContext
}

func spec(t *testing.T, s *site, key string) cloudspec.CloudSpec {
	t.Helper()
	cred := cloud.NewCredential(cloud.OAuth1AuthType, map[string]string{"maas-oauth": key})
	return cloudspec.CloudSpec{Type: "maas", Name: "ingot", Endpoint: s.url, Credential: &cred}
}

func modelConfig(t *testing.T) *config.Config {
	t.Helper()
	cfg, err := config.New(config.UseDefaults, map[string]any{"type": "maas", "name": "e2e", "uuid": modelUUID, "agent-version": "3.5.0",
		"authorized-keys": sshPublicKey(t), "resource-tags": "purpose=e2e"})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// open does what `juju add-cloud`, `add-credential` and `add-model` do before any machine.
func open(t *testing.T, s *site) *model {
	t.Helper()
	p, err := environs.Provider("maas")
	if err != nil {
		t.Fatal(err)
	}
	ctx := envcontext.NewEmptyCloudCallContext()
	if err := p.Ping(ctx, s.url); err != nil {
		t.Fatalf("add-cloud: %v", err)
	}
	if err := p.Ping(ctx, strings.TrimSuffix(s.url, "/MAAS")); err == nil {
		t.Error("add-cloud accepts an address that is no MAAS")
	}
	cfg, err := p.PrepareConfig(environs.PrepareConfigParams{Cloud: spec(t, s, s.key), Config: modelConfig(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := environs.New(context.Background(), environs.OpenParams{ControllerUUID: controllerUUID, Cloud: spec(t, s, "wrong:wrong:wrong"), Config: cfg}); err == nil {
		t.Error("a wrong key opens a model")
	}
	env, err := environs.New(context.Background(), environs.OpenParams{ControllerUUID: controllerUUID, Cloud: spec(t, s, s.key), Config: cfg})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	net, ok := env.(environs.NetworkingEnviron)
	if !ok {
		t.Fatalf("%T knows no networks", env)
	}
	return &model{t: t, s: s, env: env, net: net, ctx: ctx}
}

// sshPublicKey makes an authorized_keys line of a fresh ed25519 key (RFC 8709).
func sshPublicKey(t *testing.T) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var blob []byte
	for _, part := range [][]byte{[]byte("ssh-ed25519"), pub} {
		blob = binary.BigEndian.AppendUint32(blob, uint32(len(part)))
		blob = append(blob, part...)
	}
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob) + " e2e"
}

// caCert makes a certificate, for a controller that nobody will connect to.
func caCert(t *testing.T) string {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, form, form, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func jujuTools() tools.List {
	return tools.List{{Version: version.MustParseBinary("3.5.0-ubuntu-amd64"), URL: "https://agents.example/juju-3.5.0.tgz", SHA256: strings.Repeat("0", 64), Size: 1}}
}

// machine starts a machine of the model, as the provisioner of a controller does.
func (m *model) machine(id, cons string, more func(*environs.StartInstanceParams)) (*environs.StartInstanceResult, error) {
	m.t.Helper()
	c, err := constraints.Parse(cons)
	if err != nil {
		m.t.Fatal(err)
	}
	cfg, err := instancecfg.NewInstanceConfig(names.NewControllerTag(controllerUUID), id, "nonce", "released", corebase.MakeDefaultBase("ubuntu", "22.04"), &api.Info{
		Addrs: []string{"10.77.0.1:17070"}, Tag: names.NewMachineTag(id), Password: "p", CACert: caCert(m.t), ModelTag: names.NewModelTag(modelUUID)})
	if err != nil {
		m.t.Fatal(err)
	}
	cfg.Tags = instancecfg.InstanceTags(modelUUID, controllerUUID, m.env.Config(), false)
	p := environs.StartInstanceParams{ControllerUUID: controllerUUID, Constraints: c, Tools: jujuTools(), InstanceConfig: cfg,
		StatusCallback: func(status.Status, string, map[string]any) error { return nil }}
	if more != nil {
		more(&p)
	}
	return m.env.StartInstance(m.ctx, p)
}

// running waits until an instance runs, as the instance poller does.
func (m *model) running(id instance.Id) instances.Instance {
	m.t.Helper()
	var inst instances.Instance
	waitFor(m.t, 90*time.Second, string(id)+" runs", func() (bool, string) {
		all, err := m.env.Instances(m.ctx, []instance.Id{id})
		if err != nil {
			m.t.Fatalf("instances: %v", err)
		}
		inst = all[0]
		st := inst.Status(m.ctx)
		if st.Status != status.Running && st.Status != status.Allocating {
			m.t.Fatalf("on its way %s is %s: %s", id, st.Status, st.Message)
		}
		return st.Status == status.Running, st.Message
	})
	return inst
}

// plant is what the operator made for the models: the ids of spaces and of the machine that has everything.
type plant struct {
	public, private, storage string // spaces
	lab, priv, store         string // subnets
	big, zoned, plain        string // machines
}

func build(s *site) (p plant) {
	s.t.Helper()
	machines := s.ready(4)
	p.big, p.zoned, p.plain = machines[0], machines[1], machines[2]
	s.image("ubuntu/jammy")

	space := func(name string) string { return num(s.post("spaces", "", "name", name)["id"]) }
	p.public, p.private, p.storage = space("public"), space("private"), space("storage-net")
	for _, n := range s.list("subnets") {
		if n["name"] == "lab" {
			p.lab = num(n["id"])
			v := n["vlan"].(map[string]any)
			s.put("fabrics/"+num(v["fabric_id"])+"/vlans/"+num(v["vid"]), "space", p.public)
		}
	}
	subnet := func(vid, space, cidr, gateway string) (vlan, id string) {
		vlan = num(s.post("fabrics/0/vlans", "", "vid", vid, "space", space, "mtu", "1500")["id"])
		return vlan, num(s.post("subnets", "", "cidr", cidr, "vlan", vlan, "gateway_ip", gateway, "dns_servers", gateway)["id"])
	}
	privVLAN, priv := subnet("100", p.private, "10.78.0.0/24", "10.78.0.1")
	storeVLAN, store := subnet("200", p.storage, "10.79.0.0/24", "10.79.0.1")
	p.priv, p.store = priv, store
	s.post("static-routes", "", "source", priv, "destination", store, "gateway_ip", "10.78.0.1", "metric", "5")

	// The big machine has a second network card and two more disks; one machine has only a card in the third space beside its own.
	nic := func(machine, name, mac, vlan, subnet string) {
		i := s.post("nodes/"+machine+"/interfaces", "create_physical", "name", name, "mac_address", mac, "vlan", vlan)
		s.post("nodes/"+machine+"/interfaces/"+num(i["id"]), "link_subnet", "mode", "AUTO", "subnet", subnet)
	}
	nic(p.big, "ens4", "52:54:00:78:00:01", privVLAN, priv)
	nic(p.plain, "ens4", "52:54:00:79:00:01", storeVLAN, store)
	disk := func(tag string, pairs ...string) {
		d := s.post("nodes/"+p.big+"/blockdevices", "", append(pairs, "size", fmt.Sprint(50_000_000_000), "block_size", "512")...)
		if tag != "" {
			s.post("nodes/"+p.big+"/blockdevices/"+num(d["id"]), "add_tag", "tag", tag)
		}
	}
	disk("fast", "name", "sdb", "id_path", "/dev/disk/by-id/wwn-0x5000c500a0000001")
	disk("", "name", "sdc", "model", "Big", "serial", "B1", "id_path", "/dev/disk/by-id/scsi-B1")
	s.post("tags", "", "name", "big")
	s.post("tags/big", "update_nodes", "add", p.big)
	s.post("zones", "", "name", "west")
	s.put("machines/"+p.zoned, "zone", "west")
	return p
}

// TestProvider takes a site through what a Juju controller asks of a MAAS.
func TestProvider(t *testing.T) {
	s := dev(t, 4)
	p := build(s)
	m := open(t, s)
	t.Run("catalogue", func(t *testing.T) { m.in(t).catalogue(p) })
	t.Run("bootstrap", func(t *testing.T) { m.in(t).bootstrap() })
	t.Run("no machine", func(t *testing.T) { m.in(t).noMachine(p) })
	t.Run("constraints", func(t *testing.T) { m.in(t).constrained(p) })
	t.Run("containers", func(t *testing.T) { m.in(t).containers(p) })
	t.Run("destroy", func(t *testing.T) { m.in(t).destroy(p) })
}

func (m *model) in(t *testing.T) *model {
	c, s := *m, *m.s
	s.t, c.t, c.s = t, t, &s
	return &c
}

// catalogue reads zones, spaces, subnets, architectures.
func (m *model) catalogue(p plant) {
	t := m.t
	zoned := m.env.(interface {
		AvailabilityZones(callContext) (network.AvailabilityZones, error)
		DeriveAvailabilityZones(callContext, environs.StartInstanceParams) ([]string, error)
	})
	zones, err := zoned.AvailabilityZones(m.ctx)
	if err != nil || zones.Validate("west") != nil || zones.Validate("default") != nil || zones.Validate("east") == nil {
		t.Errorf("zones: %v, %v", zones, err)
	}
	if got, err := zoned.DeriveAvailabilityZones(m.ctx, environs.StartInstanceParams{Placement: "zone=west"}); err != nil || !slices.Equal(got, []string{"west"}) {
		t.Errorf("zones of a placement: %v, %v", got, err)
	}
	if err := m.env.PrecheckInstance(m.ctx, environs.PrecheckInstanceParams{Placement: "zone=west"}); err != nil {
		t.Error(err)
	}
	if err := m.env.PrecheckInstance(m.ctx, environs.PrecheckInstanceParams{Placement: "zone=east"}); err == nil {
		t.Error("a zone that is not there passes")
	}
	v, err := m.env.ConstraintsValidator(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Validate(constraints.MustParse("arch=amd64 mem=4G tags=big")); err != nil {
		t.Error(err)
	}
	if _, err := v.Validate(constraints.MustParse("arch=arm64")); err == nil {
		t.Error("there is no image for arm64, and it may be asked for")
	}
	spaces, err := m.net.Spaces(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]string{"public": {p.public, "10.77.0.0/24"}, "private": {p.private, "10.78.0.0/24"}, "storage-net": {p.storage, "10.79.0.0/24"}}
	for _, sp := range spaces {
		w, ok := want[string(sp.Name)]
		if !ok || string(sp.ProviderId) != w[0] || len(sp.Subnets) != 1 || sp.Subnets[0].CIDR != w[1] {
			t.Errorf("space %+v, want %v", sp, w)
		}
		delete(want, string(sp.Name))
	}
	if len(want) > 0 {
		t.Errorf("spaces %v are missing", want)
	}
	subnets, err := m.net.Subnets(m.ctx, instance.UnknownId, []network.Id{network.Id(p.priv)})
	if err != nil || len(subnets) != 1 || subnets[0].VLANTag != 100 || string(subnets[0].ProviderSpaceId) != p.private {
		t.Errorf("subnet: %+v, %v", subnets, err)
	}
	for name, f := range map[string]func(callContext) (bool, error){
		"spaces": m.net.SupportsSpaces, "space discovery": m.net.SupportsSpaceDiscovery, "container addresses": m.net.SupportsContainerAddresses} {
		if ok, err := f(m.ctx); !ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
	if err := m.env.(environs.CloudEndpointChecker).ValidateCloudEndpoint(m.ctx); err != nil {
		t.Error(err)
	}
	if all, err := m.env.AllInstances(m.ctx); err != nil || len(all) != 0 {
		t.Errorf("instances of a new model: %v, %v", all, err)
	}
}

// console is who looks on while a controller is bootstrapped.
type console struct {
	ctx context.Context
	t   *testing.T
}

func (c console) GetStdin() io.Reader                  { return strings.NewReader("") }
func (c console) GetStdout() io.Writer                 { return io.Discard }
func (c console) GetStderr() io.Writer                 { return io.Discard }
func (c console) Infof(format string, args ...any)     { c.t.Logf(format, args...) }
func (c console) Verbosef(string, ...any)              {}
func (c console) InterruptNotify(chan<- os.Signal)     {}
func (c console) StopInterruptNotify(chan<- os.Signal) {}
func (c console) ShouldVerifyCredentials() bool        { return true }
func (c console) Context() context.Context             { return c.ctx }

// bootstrap goes as far as a controller gets without ssh to its machine.
func (m *model) bootstrap() {
	t := m.t
	if _, err := m.env.ControllerInstances(m.ctx, controllerUUID); !errors.Is(err, environs.ErrNotBootstrapped) {
		t.Errorf("controllers before there is one: %v", err)
	}
	cfg, err := controller.NewConfig(controllerUUID, caCert(t), map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	c := console{ctx: t.Context(), t: t}
	if err := m.env.PrepareForBootstrap(c, "e2e"); err != nil {
		t.Fatal(err)
	}
	res, err := m.env.Bootstrap(c, m.ctx, environs.BootstrapParams{CloudName: "ingot", ControllerConfig: cfg, AvailableTools: jujuTools(), Force: true,
		BootstrapConstraints: constraints.MustParse("mem=3584M")})
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	if res.Arch != "amd64" || res.Base.String() != "ubuntu@22.04/stable" {
		t.Errorf("bootstrapped %s on %s", res.Base, res.Arch)
	}
	ids, err := m.env.ControllerInstances(m.ctx, controllerUUID)
	if err != nil || len(ids) != 1 {
		t.Fatalf("controllers: %v, %v", ids, err)
	}
	inst := m.running(ids[0])
	if addrs, err := inst.Addresses(m.ctx); err != nil || len(addrs) == 0 {
		t.Errorf("addresses of the controller: %v, %v", addrs, err)
	}
	// The machine got what Juju composed, and a controller is found by its owner data only.
	data := m.s.list("machines", "id", string(ids[0]))[0]["owner_data"].(map[string]any)
	if data[tags.JujuIsController] != "true" || data[tags.JujuController] != controllerUUID || data[tags.JujuModel] != modelUUID || data["purpose"] != "e2e" {
		t.Errorf("owner data: %v", data)
	}
	if _, err := m.env.ControllerInstances(m.ctx, modelUUID); !errors.Is(err, environs.ErrNotBootstrapped) {
		t.Errorf("another controller's machines: %v", err)
	}
	if err := m.env.StopInstances(m.ctx, ids...); err != nil {
		t.Errorf("stop: %v", err)
	}
	m.gone(ids[0])
}

// gone waits until a machine is Ready again, and finds that the model has it no more.
func (m *model) gone(id instance.Id) {
	m.t.Helper()
	if _, err := m.env.Instances(m.ctx, []instance.Id{id}); !errors.Is(err, environs.ErrNoInstances) {
		m.t.Errorf("a stopped instance is still there: %v", err)
	}
	waitFor(m.t, 60*time.Second, string(id)+" is Ready", func() (bool, string) {
		x := m.s.list("machines", "id", string(id))[0]
		if d := x["owner_data"].(map[string]any); len(d) > 0 {
			return false, fmt.Sprint(d)
		}
		return x["status_name"] == "Ready", fmt.Sprint(x["status_name"])
	})
}
