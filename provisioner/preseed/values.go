package preseed

// Values are what a template sees, by the names that MAAS's templates know.
type Values struct {
	OSystem, Release               string
	ServerHost, ServerURL          string
	SyslogHostPort, HTTPProxy      string
	Node                           Node // its SystemID is empty when nobody knows the machine
	PreseedData                    string
	NodeDisablePXEURL, LicenseKey  string
	MainArchiveHostname, MainPath  string // of Ubuntu's archive
	PortsArchiveHostname, PortPath string
}

// Node is what a template sees of its machine.
type Node struct {
	SystemID, Hostname, Domain, FQDN, Architecture, Description, Status, Owner, Zone, Pool string
	OSystem, DistroSeries, HWEKernel, BIOSBootMethod, PowerType                            string
	CPUCount, Memory                                                                       int64
	Tags                                                                                   []string
	Annotations                                                                            map[string]string
}

// Map is what a template is executed with: nothing but texts, numbers, lists and mappings.
func (v Values) Map() map[string]any {
	n := v.Node
	tags := make([]any, len(n.Tags))
	for i, t := range n.Tags {
		tags[i] = t
	}
	annotations := make(map[string]any, len(n.Annotations))
	for k, x := range n.Annotations {
		annotations[k] = x
	}
	return map[string]any{
		"osystem": v.OSystem, "release": v.Release, "server_host": v.ServerHost, "server_url": v.ServerURL, "syslog_host_port": v.SyslogHostPort,
		"http_proxy": v.HTTPProxy, "preseed_data": v.PreseedData, "node_disable_pxe_url": v.NodeDisablePXEURL,
		"node_disable_pxe_data": "op=netboot_off", "license_key": v.LicenseKey, "third_party_drivers": false, "driver": map[string]any{}, "driver_package": "",
		"main_archive_hostname": v.MainArchiveHostname, "main_archive_directory": v.MainPath, "ports_archive_hostname": v.PortsArchiveHostname,
		"ports_archive_directory": v.PortPath, "enable_http_proxy": v.HTTPProxy != "",
		"node": map[string]any{
			"system_id": n.SystemID, "hostname": n.Hostname, "domain": n.Domain, "fqdn": n.FQDN, "architecture": n.Architecture, "description": n.Description,
			"status": n.Status, "owner": n.Owner, "zone": n.Zone, "pool": n.Pool, "osystem": n.OSystem, "distro_series": n.DistroSeries,
			"hwe_kernel": n.HWEKernel, "bios_boot_method": n.BIOSBootMethod, "power_type": n.PowerType, "cpu_count": n.CPUCount, "memory": n.Memory,
			"tags": tags, "workload_annotations": annotations,
		},
	}
}

// Sample are values of a machine that does not exist, for a look at a template before one does.
func Sample(k Kind) Values {
	v := Values{OSystem: "ubuntu", Release: "noble", ServerHost: "192.0.2.1", ServerURL: "http://192.0.2.1:5248/MAAS/metadata/", SyslogHostPort: "192.0.2.1:5247",
		HTTPProxy: "http://192.0.2.1:8000/", NodeDisablePXEURL: "http://192.0.2.1:5248/MAAS/metadata/latest/by-id/abc123/", LicenseKey: "XXXXX-XXXXX-XXXXX-XXXXX-XXXXX",
		MainArchiveHostname: "archive.ubuntu.com", MainPath: "ubuntu", PortsArchiveHostname: "ports.ubuntu.com", PortPath: "ubuntu-ports",
		Node: Node{SystemID: "abc123", Hostname: "sample", Domain: "maas", FQDN: "sample.maas", Architecture: "amd64/generic", Status: "Deploying", Owner: "admin",
			Zone: "default", Pool: "default", OSystem: "ubuntu", DistroSeries: "noble", BIOSBootMethod: "uefi", PowerType: "ipmi", CPUCount: 4, Memory: 8192,
			Tags: []string{"virtual"}, Annotations: map[string]string{}}}
	switch k {
	case CloudConfig:
		v.PreseedData = "#cloud-config\ndatasource:\n  MAAS:\n    metadata_url: http://192.0.2.1:5248/MAAS/metadata/\nmanage_etc_hosts: true\n"
	case Mapping:
		v.PreseedData = "late_commands:\n  maas: [wget, --no-proxy, \"http://192.0.2.1:5248/MAAS/metadata/latest/by-id/abc123/\"]\n"
	case XML:
		v.PreseedData = "<sample/>\n"
	case Text:
		v.PreseedData = "# sample\n"
	}
	return v
}
