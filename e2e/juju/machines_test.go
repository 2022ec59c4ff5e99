package juju

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/juju/names/v5"
	"github.com/juju/version/v2"

	"github.com/juju/juju/core/instance"
	"github.com/juju/juju/core/network"
	"github.com/juju/juju/environs"
	"github.com/juju/juju/storage"
)

// noMachine asks for what there is not.
func (m *model) noMachine(p plant) {
	t := m.t
	for cons, zone := range map[string]string{"mem=4T": "", "tags=no-such-tag": "", "cores=400": "default", "tags=big": "west"} {
		_, err := m.machine("9", cons, func(p *environs.StartInstanceParams) { p.AvailabilityZone = zone })
		if err == nil {
			t.Errorf("%s started", cons)
			continue
		}
		if got := errors.Is(err, environs.ErrAvailabilityZoneIndependent); got == (zone != "") {
			t.Errorf("%s in zone %q: the error tells Juju that other zones may do: %v: %v", cons, zone, !got, err)
		}
		if !strings.Contains(err.Error(), "failed to acquire node") {
			t.Errorf("%s: %v", cons, err)
		}
	}
	if _, err := m.machine("9", "spaces=nowhere", nil); err == nil || !strings.Contains(err.Error(), "unrecognised space") {
		t.Errorf("a space that is not there: %v", err)
	}
	if all, err := m.env.AllInstances(m.ctx); err != nil || len(all) != 0 {
		t.Errorf("what could not start is there: %v, %v", all, err)
	}
	if _, err := m.env.Instances(m.ctx, []instance.Id{instance.Id(p.big)}); !errors.Is(err, environs.ErrNoInstances) {
		t.Errorf("a machine that the model does not have: %v", err)
	}
}

// constrained starts the machine with two disks and a network card in another space, and others by placement, zone and absence.
func (m *model) constrained(p plant) {
	t := m.t
	volume := func(id string, gib uint64, attrs map[string]any) storage.VolumeParams {
		tag := names.NewVolumeTag(id)
		return storage.VolumeParams{Tag: tag, Size: gib << 10, Provider: "maas", Attributes: attrs,
			Attachment: &storage.VolumeAttachmentParams{AttachmentParams: storage.AttachmentParams{Machine: names.NewMachineTag("1")}, Volume: tag}}
	}
	res, err := m.machine("1", "arch=amd64 cores=2 mem=2G root-disk=8G tags=big,^slow spaces=private,public,^storage-net", func(p *environs.StartInstanceParams) {
		p.AvailabilityZone = "default"
		p.Volumes = []storage.VolumeParams{volume("1", 10, map[string]any{"tags": "fast"}), volume("2", 20, nil)}
	})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	id := res.Instance.Id()
	if string(id) != p.big {
		t.Errorf("started %s, want %s", id, p.big)
	}
	if h := res.Hardware; *h.Arch != "amd64" || *h.CpuCores != 4 || *h.Mem != 8192 || *h.AvailabilityZone != "default" || !slices.Contains(*h.Tags, "big") {
		t.Errorf("hardware: %s", h)
	}
	if res.DisplayName == "" {
		t.Error("no display name")
	}
	// The volumes are the disks that were asked for.
	if len(res.Volumes) != 2 || len(res.VolumeAttachments) != 2 {
		t.Fatalf("volumes %+v, attachments %+v", res.Volumes, res.VolumeAttachments)
	}
	for _, v := range res.Volumes {
		switch v.Tag.Id() {
		case "1":
			if v.WWN != "0x5000c500a0000001" || v.Size < 40<<10 {
				t.Errorf("tagged volume: %+v", v.VolumeInfo)
			}
		case "2":
			if v.HardwareId != "scsi-B1" {
				t.Errorf("untagged volume: %+v", v.VolumeInfo)
			}
		default:
			t.Errorf("volume %s", v.Tag)
		}
	}
	// An interface in each space; the addresses are given out at deploy, as in MAAS, and Juju reads them later.
	subnetOf := map[network.Id]network.Id{}
	for _, n := range res.NetworkInfo {
		subnetOf[n.ProviderSpaceId] = n.ProviderSubnetId
		if n.MTU == 0 || n.MACAddress == "" || n.ProviderVLANId == "" || !slices.Contains(n.DNSSearchDomains, "maas") || n.GatewayAddress.Value == "" || len(n.DNSServers) != 1 {
			t.Errorf("interface: %+v", n)
		}
	}
	if len(subnetOf) != 2 || subnetOf[network.Id(p.private)] != network.Id(p.priv) || subnetOf[network.Id(p.public)] != network.Id(p.lab) {
		t.Errorf("subnets by space: %v", subnetOf)
	}

	// By name of the machine, by id, by zone; the fourth is the one that no constraint of these leaves out.
	other, err := m.machine("2", "", func(x *environs.StartInstanceParams) { x.Placement = "system-id=" + p.plain })
	if err != nil || string(other.Instance.Id()) != p.plain {
		t.Fatalf("by system id: %+v, %v", other, err)
	}
	west, err := m.machine("3", "", func(x *environs.StartInstanceParams) { x.AvailabilityZone = "west" })
	if err != nil || string(west.Instance.Id()) != p.zoned {
		t.Fatalf("in zone west: %+v, %v", west, err)
	}
	ids := []instance.Id{id, other.Instance.Id(), west.Instance.Id()}
	zones, err := m.env.(interface {
		InstanceAvailabilityZoneNames(ctx callContext, ids []instance.Id) (map[instance.Id]string, error)
	}).InstanceAvailabilityZoneNames(m.ctx, ids)
	if err != nil || zones[ids[2]] != "west" || zones[ids[0]] != "default" {
		t.Errorf("zones of the instances: %v, %v", zones, err)
	}

	for _, x := range ids {
		inst := m.running(x)
		addrs, err := inst.Addresses(m.ctx)
		if err != nil {
			t.Fatalf("addresses of %s: %v", x, err)
		}
		if x == id {
			if len(addrs) != 2 {
				t.Errorf("addresses: %+v", addrs)
			}
			for _, a := range addrs {
				want, ok := map[network.SpaceName][2]string{"private": {p.private, "10.78.0.0/24"}, "public": {p.public, "10.77.0.0/24"}}[a.SpaceName]
				if !ok || string(a.ProviderSpaceID) != want[0] || a.CIDR != want[1] || !strings.HasPrefix(a.Value, strings.TrimSuffix(want[1], "0/24")) || a.ConfigType != network.ConfigStatic {
					t.Errorf("address %+v", a)
				}
			}
		}
	}
	infos, err := m.net.NetworkInterfaces(m.ctx, ids)
	if err != nil || len(infos) != 3 || len(infos[0]) != 2 || len(infos[1]) != 2 || len(infos[2]) != 1 {
		t.Errorf("interfaces: %+v, %v", infos, err)
	}
	if partial, err := m.net.NetworkInterfaces(m.ctx, []instance.Id{id, "nobody"}); !errors.Is(err, environs.ErrPartialInstances) || len(partial[0]) != 2 {
		t.Errorf("interfaces of one that is there and one that is not: %v, %v", partial, err)
	}
	subnets, err := m.net.Subnets(m.ctx, id, nil)
	if err != nil || len(subnets) != 2 {
		t.Errorf("subnets of an instance: %+v, %v", subnets, err)
	}

	all, err := m.env.AllRunningInstances(m.ctx)
	if err != nil || len(all) != 3 {
		t.Errorf("all instances: %v, %v", all, err)
	}
	const next = "7ea9c4f0-0b1a-4c51-8a4c-2f1f5a0e0009"
	if err := m.env.AdoptResources(m.ctx, next, version.MustParse("3.5.0")); err != nil {
		t.Errorf("adopt: %v", err)
	}
	if d := m.s.list("machines", "id", string(id))[0]["owner_data"].(map[string]any); d["juju-controller-uuid"] != next || d["juju-model-uuid"] != modelUUID {
		t.Errorf("owner data after a migration: %v", d)
	}

	// Two stay for what comes next. One that is not known does not keep the others from being stopped.
	if err := m.env.StopInstances(m.ctx, ids[2], "nobody"); err != nil {
		t.Errorf("stop with an unknown one: %v", err)
	}
	m.gone(ids[2])
	if err := m.env.StopInstances(m.ctx, ids[2]); err != nil {
		t.Errorf("stop again: %v", err)
	}
}

// containers gives containers on the big machine addresses, and takes them back.
func (m *model) containers(p plant) {
	t := m.t
	host := instance.Id(p.big)
	ask := func(n int) network.InterfaceInfos {
		nic := func(name, mac, cidr, parent string) network.InterfaceInfo {
			return network.InterfaceInfo{InterfaceName: name, MACAddress: mac, ParentInterfaceName: parent, InterfaceType: network.EthernetDevice, MTU: 1500,
				Addresses: network.ProviderAddresses{network.NewMachineAddress("", network.WithCIDR(cidr)).AsProviderAddress()}}
		}
		return network.InterfaceInfos{nic("eth0", fmt.Sprintf("00:16:3e:00:%02x:00", n), "10.78.0.0/24", "br-ens4"), nic("eth1", fmt.Sprintf("00:16:3e:00:%02x:01", n), "10.77.0.0/24", "br-ens3")}
	}
	var released []network.ProviderInterfaceInfo
	seen := map[string]bool{}
	for n := range 2 {
		tag := names.NewMachineTag(fmt.Sprintf("1/lxd/%d", n))
		got, err := m.net.AllocateContainerAddresses(m.ctx, host, tag, ask(n))
		if err != nil {
			t.Fatalf("addresses for %s: %v", tag.Id(), err)
		}
		again, err := m.net.AllocateContainerAddresses(m.ctx, host, tag, ask(n))
		if err != nil || len(again) != 2 || len(got) != 2 {
			t.Fatalf("again for %s: %+v, %v", tag.Id(), again, err)
		}
		for i, nic := range got {
			a := nic.PrimaryAddress()
			if want := []string{"10.78.0.", "10.77.0."}[i]; !strings.HasPrefix(a.Value, want) || seen[a.Value] {
				t.Errorf("%s of %s has %q", nic.InterfaceName, tag.Id(), a.Value)
			}
			seen[a.Value] = true
			if again[i].PrimaryAddress().Value != a.Value || again[i].ProviderId != nic.ProviderId {
				t.Errorf("%s of %s had %s, and then %s", nic.InterfaceName, tag.Id(), a.Value, again[i].PrimaryAddress().Value)
			}
			if nic.MTU != 1500 || nic.GatewayAddress.Value == "" || nic.ConfigType != "" || nic.ProviderSubnetId == "" {
				t.Errorf("container interface: %+v", nic)
			}
			released = append(released, network.ProviderInterfaceInfo{InterfaceName: nic.InterfaceName, ProviderId: nic.ProviderId, HardwareAddress: nic.MACAddress})
		}
		if r := got[0].Routes; len(r) != 1 || r[0].DestinationCIDR != "10.79.0.0/24" || r[0].GatewayIP != "10.78.0.1" || r[0].Metric != 5 {
			t.Errorf("routes: %+v", r)
		}
	}
	devices := m.s.list("devices")
	if len(devices) != 2 {
		t.Errorf("%d devices", len(devices))
	}
	for _, d := range devices {
		if d["parent"] != p.big || !strings.HasPrefix(d["hostname"].(string), "juju-") {
			t.Errorf("device %v of %v", d["hostname"], d["parent"])
		}
	}
	// A container that is made anew, with other cards, replaces the device of its name.
	changed, err := m.net.AllocateContainerAddresses(m.ctx, host, names.NewMachineTag("1/lxd/0"), ask(7))
	if err != nil || len(changed) != 2 || changed[0].MACAddress != "00:16:3e:00:07:00" {
		t.Errorf("changed container: %+v, %v", changed, err)
	}
	for _, nic := range changed {
		released = append(released, network.ProviderInterfaceInfo{HardwareAddress: nic.MACAddress})
	}
	if err := m.net.ReleaseContainerAddresses(m.ctx, released); err != nil {
		t.Errorf("release: %v", err)
	}
	if d := m.s.list("devices"); len(d) != 0 {
		t.Errorf("%d devices are left", len(d))
	}
	if err := m.net.ReleaseContainerAddresses(m.ctx, released); err != nil {
		t.Errorf("release again: %v", err)
	}
	// A device that is left behind goes with its host; see destroy.
	if _, err := m.net.AllocateContainerAddresses(m.ctx, host, names.NewMachineTag("1/lxd/9"), ask(9)); err != nil {
		t.Error(err)
	}
}

// destroy ends the model with what it still has.
func (m *model) destroy(p plant) {
	t := m.t
	if err := m.env.Destroy(m.ctx); err != nil {
		t.Fatalf("destroy: %v", err)
	}
	m.gone(instance.Id(p.big))
	m.gone(instance.Id(p.plain))
	if all, err := m.env.AllInstances(m.ctx); err != nil || len(all) != 0 {
		t.Errorf("after destroy: %v, %v", all, err)
	}
	if d := m.s.list("devices"); len(d) != 0 {
		t.Errorf("after destroy there are devices: %v", d)
	}
	if err := m.env.DestroyController(m.ctx, controllerUUID); err != nil {
		t.Errorf("destroy again: %v", err)
	}
}
