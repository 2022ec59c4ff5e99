package agent

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// udevWord is what may stand in a udev rule as it is.
var udevWord = regexp.MustCompile(`^[a-zA-Z0-9_+.:-]+$`)

// namesFile gives devices the names that the model has for them, as links in /dev/disk/by-dname: the kernel's own names depend on the
// order in which it finds things.
const namesFile = "/etc/udev/rules.d/68-ingot-dname.rules"

// deviceNames are the rules. ids are what was written into partition tables, and the UUIDs of bcaches' backing devices, by item.
func (p *storagePlan) deviceNames(ids map[string]string, tables map[string][]tablePart) string {
	var b strings.Builder
	b.WriteString("# Written by ingot-agent at installation: the names that this machine's disks have in its model.\nSUBSYSTEM!=\"block\", GOTO=\"ingot_end\"\n")
	rule := func(name, match, key, value string) {
		if udevWord.MatchString(name) && udevWord.MatchString(value) {
			if !strings.Contains(key, "{") {
				key = "ENV{" + key + "}"
			}
			fmt.Fprintf(&b, "%s, %s==\"%s\", SYMLINK+=\"disk/by-dname/%s\"\n", match, key, value, name)
		}
	}
	const disk, part, array, mapped, cached = `ENV{DEVTYPE}=="disk"`, `ENV{DEVTYPE}=="partition"`, `KERNEL=="md*", ENV{DEVTYPE}=="disk"`, `KERNEL=="dm-*"`, `KERNEL=="bcache*", ENV{DEVTYPE}=="disk"`
	for i := range p.items {
		it := &p.items[i]
		switch it.Type {
		case api.StorageDisk:
			if ids[it.ID] != "" {
				rule(it.ID, disk, "ID_PART_TABLE_UUID", ids[it.ID])
			} else {
				rule(it.ID, disk, "ID_SERIAL", it.Disk.Serial) // virtio
				rule(it.ID, disk, "ID_SERIAL_SHORT", it.Disk.Serial)
			}
		case api.StoragePartition:
			if p.byID[it.Device].PTable == "msdos" {
				rule(it.ID, part, "ID_PART_ENTRY_UUID", fmt.Sprintf("%s-%02x", ids[it.Device], it.Number))
				continue
			}
			for _, t := range tables[it.Device] {
				if t.number == it.Number {
					rule(it.ID, part, "ID_PART_ENTRY_UUID", strings.ToLower(t.uuid))
				}
			}
		case api.StorageRAID:
			rule(it.ID, array, "MD_UUID", arrayUUID(it.UUID))
		case api.StorageLV:
			rule(it.ID, mapped, "DM_NAME", strings.TrimPrefix(mapperNode(p.byID[it.VolGroup].Name, it.Name), "/dev/mapper/"))
		case api.StorageBcache:
			rule(it.ID, cached, "ATTR{bcache/backing_dev_uuid}", ids[it.ID])
		}
	}
	b.WriteString("LABEL=\"ingot_end\"\n")
	return b.String()
}
