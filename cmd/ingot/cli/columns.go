package cli

import "strings"

// column is one column of a table, or one line of a single object.
type column struct {
	title string
	paths []string // of several, the first that holds something
	unit  string   // bytes, mib, mb, flag
	wide  bool     // in wide tables and single objects only
}

// section is a list inside an object that gets a table of its own.
type section struct{ title, key, kind string }

// layout says how the objects of a type are shown.
type layout struct {
	columns  []column
	sections []section
}

// layouts are the main objects, by the type in the operation table. Other objects show what scalars they have. The language:
// TITLE=path, several paths with |, a unit after :, + before what only wide tables have, # before a section.
var layouts = map[string]layout{
	"Machine": shape("SYSTEM ID=system_id", "NAME=fqdn|hostname", "STATUS=status_name", "POWER=power_state", "OWNER=owner", "POOL=pool.name", "ZONE=zone.name",
		"CORES=cpu_count", "MEMORY=memory:mib", "DISKS=storage:mb", "ADDRESSES=ip_addresses", "TAGS=tag_names",
		"+ARCH=architecture", "+OS=osystem", "+SERIES=distro_series", "+KERNEL=hwe_kernel", "+POWER TYPE=power_type", "+MAC=boot_interface.mac_address", "+DOMAIN=domain.name",
		"+LOCKED=locked:flag", "+MESSAGE=status_message", "+DESCRIPTION=description",
		"#INTERFACES=interface_set:Interface", "#DISKS=blockdevice_set:BlockDevice"),
	"Device": shape("SYSTEM ID=system_id", "NAME=fqdn|hostname", "OWNER=owner", "ZONE=zone.name", "PARENT=parent", "ADDRESSES=ip_addresses", "TAGS=tag_names",
		"+DOMAIN=domain.name", "+MACS=interface_set.mac_address", "+DESCRIPTION=description", "#INTERFACES=interface_set:Interface"),
	"RackController": shape("SYSTEM ID=system_id", "NAME=fqdn|hostname", "TYPE=node_type_name", "ZONE=zone.name", "VERSION=version", "ADDRESSES=ip_addresses", "SERVICES=service_set.name",
		"+ARCH=architecture", "+DESCRIPTION=description", "#SERVICES=service_set:Service"),
	"RegionController": shape("SYSTEM ID=system_id", "NAME=fqdn|hostname", "TYPE=node_type_name", "ZONE=zone.name", "VERSION=version", "ADDRESSES=ip_addresses", "SERVICES=service_set.name",
		"+ARCH=architecture", "+DESCRIPTION=description", "#SERVICES=service_set:Service"),
	"any":     shape("SYSTEM ID=system_id", "NAME=fqdn|hostname", "TYPE=node_type_name", "STATUS=status_name", "ZONE=zone.name", "ADDRESSES=ip_addresses", "TAGS=tag_names"),
	"Service": shape("NAME=name", "STATUS=status", "INFO=status_info"),
	"Interface": shape("ID=id", "NAME=name", "TYPE=type", "MAC=mac_address", "VLAN=vlan.vid", "FABRIC=vlan.fabric", "MODES=links.mode", "ADDRESSES=links.ip_address", "SUBNETS=links.subnet.cidr",
		"+MTU=effective_mtu", "+PARENTS=parents", "+CHILDREN=children", "+ENABLED=enabled:flag", "+VENDOR=vendor", "+PRODUCT=product", "+TAGS=tags"),
	"BlockDevice": shape("ID=id", "NAME=name", "TYPE=type", "SIZE=size:bytes", "FREE=available_size:bytes", "USED FOR=used_for", "MODEL=model", "SERIAL=serial",
		"+PATH=path", "+FILE SYSTEM=filesystem.fstype", "+MOUNT=filesystem.mount_point", "+ID PATH=id_path", "+TAGS=tags", "#PARTITIONS=partitions:Partition"),
	"Partition":   shape("ID=id", "PATH=path", "SIZE=size:bytes", "USED FOR=used_for", "FILE SYSTEM=filesystem.fstype", "MOUNT=filesystem.mount_point", "BOOTABLE=bootable:flag", "+UUID=uuid", "+TAGS=tags"),
	"Raid":        shape("ID=id", "NAME=name", "LEVEL=level", "SIZE=size:bytes", "DEVICES=devices.name", "SPARES=spare_devices.name", "+UUID=uuid"),
	"VolumeGroup": shape("ID=id", "NAME=name", "SIZE=size:bytes", "FREE=available_size:bytes", "DEVICES=devices.name", "VOLUMES=logical_volumes.name", "+UUID=uuid"),
	"Bcache":      shape("ID=id", "NAME=name", "MODE=cache_mode", "SIZE=size:bytes", "BACKING=backing_device.name", "CACHE SET=cache_set.name"),

	"Fabric": shape("ID=id", "NAME=name", "CLASS=class_type", "VLANS=vlans.vid", "+DESCRIPTION=description", "#VLANS=vlans:Vlan"),
	"Vlan": shape("ID=id", "VID=vid", "NAME=name", "FABRIC=fabric", "SPACE=space", "MTU=mtu", "DHCP=dhcp_on:flag", "RACK=primary_rack", "SECOND RACK=secondary_rack",
		"+RELAY VLAN=relay_vlan.id", "+EXTERNAL DHCP=external_dhcp", "+DESCRIPTION=description"),
	"Subnet": shape("ID=id", "CIDR=cidr", "NAME=name", "VID=vlan.vid", "FABRIC=vlan.fabric", "SPACE=space", "GATEWAY=gateway_ip", "DNS=dns_servers", "MANAGED=managed:flag",
		"+DHCP=vlan.dhcp_on:flag", "+ALLOW DNS=allow_dns:flag", "+RDNS MODE=rdns_mode", "+DESCRIPTION=description"),
	"Space":             shape("ID=id", "NAME=name", "VLANS=vlans.vid", "SUBNETS=subnets.cidr", "+DESCRIPTION=description", "#SUBNETS=subnets:Subnet"),
	"IPRange":           shape("ID=id", "TYPE=type", "FIRST=start_ip", "LAST=end_ip", "SUBNET=subnet.cidr", "OWNER=user.username|user", "COMMENT=comment"),
	"ReservedIP":        shape("ID=id", "ADDRESS=ip", "MAC=mac_address", "SUBNET=subnet.cidr", "COMMENT=comment"),
	"StaticIPAddress":   shape("ADDRESS=ip", "TYPE=alloc_type_name", "SUBNET=subnet.cidr", "OWNER=owner.username|owner", "CREATED=created", "+HOST=interface_set.system_id"),
	"StaticRoute":       shape("ID=id", "SOURCE=source.cidr", "DESTINATION=destination.cidr", "GATEWAY=gateway_ip", "METRIC=metric"),
	"Domain":            shape("ID=id", "NAME=name", "TTL=ttl", "RECORDS=resource_record_count", "AUTHORITATIVE=authoritative:flag", "DEFAULT=is_default:flag"),
	"DNSResource":       shape("ID=id", "NAME=fqdn", "TTL=address_ttl", "ADDRESSES=ip_addresses.ip", "RECORDS=resource_records.rrdata"),
	"DNSResourceRecord": shape("ID=id", "NAME=fqdn", "TYPE=rrtype", "DATA=rrdata", "TTL=ttl"),
	"Discovery":         shape("ID=discovery_id", "ADDRESS=ip", "MAC=mac_address", "NAME=hostname", "VENDOR=mac_organization", "SUBNET=subnet.cidr", "SEEN=last_seen"),
	"DHCPSnippet":       shape("ID=id", "NAME=name", "ENABLED=enabled:flag", "GLOBAL=global_snippet:flag", "NODE=node.system_id", "SUBNET=subnet.cidr", "DESCRIPTION=description", "+VALUE=value"),

	"Zone":         shape("ID=id", "NAME=name", "DESCRIPTION=description"),
	"ResourcePool": shape("ID=id", "NAME=name", "DESCRIPTION=description"),
	"Tag":          shape("NAME=name", "COMMENT=comment", "DEFINITION=definition", "KERNEL OPTIONS=kernel_opts"),
	"User":         shape("NAME=username", "EMAIL=email", "ADMIN=is_superuser:flag", "LOCAL=is_local:flag", "KEYS=sshkeys_count", "MACHINES=machines_count"),
	"SSHKey":       shape("ID=id", "FROM=keysource", "KEY=key"),
	"SSLKey":       shape("ID=id", "KEY=key"),
	"Event":        shape("ID=id", "CREATED=created", "LEVEL=level", "NODE=node", "NAME=hostname", "TYPE=type", "DESCRIPTION=description", "+USER=username"),
	"Notification": shape("ID=id", "CATEGORY=category", "FOR=user|users:", "MESSAGE=message"),
	"Script": shape("ID=id", "NAME=name", "TYPE=type_name", "TITLE=title", "HARDWARE=hardware_type_name", "TIMEOUT=timeout", "PARALLEL=parallel_name", "TAGS=tags",
		"+DESCRIPTION=description", "+DESTRUCTIVE=destructive:flag"),
	"ScriptSet":    shape("ID=id", "TYPE=type_name", "STATUS=status_name", "STARTED=started", "ENDED=ended", "RUNTIME=runtime", "#SCRIPTS=results:ScriptResult"),
	"ScriptResult": shape("ID=id", "NAME=name", "STATUS=status_name", "EXIT=exit_status", "STARTED=started", "RUNTIME=runtime"),
	"NodeResult":   shape("ID=id", "NODE=node.system_id", "NAME=name", "EXIT=script_result", "TYPE=result_type", "CREATED=created"),
	"NodeDevice":   shape("ID=id", "BUS=bus_name", "ADDRESS=pci_address", "VENDOR=vendor_name", "PRODUCT=product_name", "HARDWARE=hardware_type_name", "DRIVER=commissioning_driver"),

	"BootResource":        shape("ID=id", "NAME=name", "ARCH=architecture", "TYPE=type", "TITLE=title", "+SUBARCHES=subarches", "+LAST DEPLOYED=last_deployed"),
	"BootSource":          shape("ID=id", "URL=url", "KEYRING=keyring_filename", "UPDATED=updated"),
	"BootSourceSelection": shape("ID=id", "OS=os", "RELEASE=release", "ARCHES=arches", "SUBARCHES=subarches", "LABELS=labels"),
	"PackageRepository":   shape("ID=id", "NAME=name", "URL=url", "ENABLED=enabled:flag", "ARCHES=arches", "+DISTRIBUTIONS=distributions", "+COMPONENTS=components"),
	"LicenseKey":          shape("OS=osystem", "SERIES=distro_series", "KEY=license_key"),
	"PowerType":           shape("NAME=name", "DESCRIPTION=description", "FIELDS=fields.name", "+QUERYABLE=queryable:flag"),
	"StoredFileListing":   shape("NAME=filename", "LINK=anon_resource_uri"),
	"AccountTokenListing": shape("NAME=name", "TOKEN=token"),
	"UserGroup":           shape("ID=id", "NAME=name", "DESCRIPTION=description"),
	"IngotBoot":           shape("ID=id", "STARTED=started", "PURPOSE=purpose", "VERDICT=verdict", "MAC=mac", "RACK=rack", "STEPS=steps.step", "+UPDATED=updated"),
}

func shape(specs ...string) layout {
	var l layout
	for _, s := range specs {
		title, rest, _ := strings.Cut(s, "=")
		if name, ok := strings.CutPrefix(title, "#"); ok {
			key, kind, _ := strings.Cut(rest, ":")
			l.sections = append(l.sections, section{name, key, kind})
			continue
		}
		name, wide := strings.CutPrefix(title, "+")
		paths, unit, _ := strings.Cut(rest, ":")
		l.columns = append(l.columns, column{title: name, paths: strings.Split(paths, "|"), unit: unit, wide: wide})
	}
	return l
}
