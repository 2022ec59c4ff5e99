package main

import "strings"

// initialisms are the words that Go names write in capitals.
var initialisms = map[string]string{
	"Api": "API", "Cidr": "CIDR", "Cpu": "CPU", "Dhcp": "DHCP", "Dns": "DNS", "Dpu": "DPU", "Fqdn": "FQDN", "Hw": "HW", "Hwe": "HWE",
	"Id": "ID", "Ip": "IP", "Ips": "IPs", "Ipv4": "IPv4", "Json": "JSON", "Kvm": "KVM", "Mac": "MAC", "Macs": "MACs", "Mtu": "MTU",
	"Numa": "NUMA", "Os": "OS", "Ram": "RAM", "Sha256": "SHA256", "Sriov": "SRIOV", "Ssh": "SSH", "Ssl": "SSL", "Stp": "STP", "Ttl": "TTL",
	"Uri": "URI", "Url": "URL", "Uuid": "UUID", "Vid": "VID", "Vlan": "VLAN", "Vlans": "VLANs", "Bmc": "BMC", "Bmcs": "BMCs", "Raid": "RAID",
}

// camel writes snake_case, dots and dashes in camel case: the methods' names, MachinesAllocate.
func camel(s string) string {
	var b strings.Builder
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r == '_' || r == '.' || r == '-' || r == ' ' }) {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String()
}

// field is camel with Go's initialisms: the structs' fields, SystemID.
func field(s string) string {
	var b strings.Builder
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r == '_' || r == '.' || r == '-' || r == ' ' }) {
		w = strings.ToUpper(w[:1]) + w[1:]
		if up, ok := initialisms[w]; ok {
			w = up
		}
		b.WriteString(w)
	}
	return b.String()
}
