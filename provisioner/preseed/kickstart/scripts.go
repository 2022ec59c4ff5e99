package kickstart

import (
	"encoding/base64"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/provisioner/preseed/sshkey"
)

// includeFile has the storage commands, with the names that the kernel gave the disks this time.
const includeFile = "/tmp/ingot-storage.ks"

// reporting are the shell functions that tell the region how it goes, in the form of curtin's events. A lost report does not end an
// installation: only the last word, that the disk is the next boot, must arrive.
const reporting = `
oauth() {
    echo "Authorization: OAuth oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"$CONSUMER_KEY\", oauth_token=\"$TOKEN_KEY\", oauth_signature=\"%26$TOKEN_SECRET\", oauth_timestamp=\"$(date +%s)\", oauth_nonce=\"$(cat /proc/sys/kernel/random/uuid)\""
}
json() {
    printf %s "$1" | tr -cd '\040-\176' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g'
}
report() { # type, name, description, result, files
    curl -fsS --noproxy '*' --max-time 30 --retry 4 --retry-delay 2 -o /dev/null -H 'Content-Type: application/json' -H "$(oauth)" \
        --data-binary "{\"event_type\":\"$1\",\"origin\":\"curtin\",\"name\":\"$2\",\"description\":\"$(json "$3")\",\"level\":\"INFO\",\"timestamp\":$(date +%s)${4:+,\"result\":\"$4\"}${5:+,\"files\":[$5]}}" \
        "${METADATA}status/$SYSTEM_ID" || echo "ingot: the report $2 was not delivered"
}
`

// beating says every now and then that the machine is at work: packages of a slow mirror take longer than the region waits for a silent machine.
const beating = `
(
    while sleep 240; do
        curl -fsS --noproxy '*' --max-time 30 -o /dev/null -H "$(oauth)" -F op=signal -F status=WORKING "${METADATA}2012-03-01/"
    done
) </dev/null >/dev/null 2>&1 &
`

func (in *Input) head(s *script) {
	s.set("METADATA", in.MetadataURL)
	s.set("SYSTEM_ID", in.SystemID)
	s.set("CONSUMER_KEY", in.Credentials.ConsumerKey)
	s.set("TOKEN_KEY", in.Credentials.TokenKey)
	s.set("TOKEN_SECRET", in.Credentials.TokenSecret)
	s.text(reporting)
}

// finding is the shell function that finds a disk as the agent does: by its serial number, else by its path, and its size must be right.
// Anything else than exactly one such disk ends the installation before a disk is written.
const finding = `
fail() {
    echo "ingot: $1"
    report finish cmd-install "$1" FAIL
    exit 1
}
SYS=/sys/block
find_disk() { # name in the model, serial, path, bytes: sets found
    found=
    for dir in "$SYS"/*; do
        k=${dir##*/}
        case "$k" in
        loop*|ram*|zram*|sr*|fd*|dm-*|md*) continue ;;
        *[!a-z0-9]*) continue ;;
        esac
        [ -r "$dir/size" ] && [ "$(($(cat "$dir/size") * 512))" = "$4" ] || continue
        facts=$(udevadm info --query=property --name="/dev/$k" 2>/dev/null)
        match=
        if [ -n "$2" ]; then
            for s in "$(cat "$dir/serial" 2>/dev/null)" "$(cat "$dir/device/serial" 2>/dev/null)" \
                "$(printf '%s\n' "$facts" | sed -n 's/^ID_SERIAL_SHORT=//p')" "$(printf '%s\n' "$facts" | sed -n 's/^ID_SCSI_SERIAL=//p')" \
                "$(printf '%s\n' "$facts" | sed -n 's/^ID_SERIAL=//p')"; do
                s=$(printf %s "$s" | sed -e 's/^ *//' -e 's/ *$//')
                [ "$s" = "$2" ] && match=1
            done
        else
            for l in "/dev/$k" $(printf '%s\n' "$facts" | sed -n 's/^DEVLINKS=//p'); do
                [ "$l" = "$3" ] && match=1
            done
        fi
        [ -n "$match" ] || continue
        [ -z "$found" ] || fail "Two disks look like $1 of the machine's model: $found and $k. Nothing was written."
        found=$k
    done
    [ -n "$found" ] || fail "The disk $1 of the machine's model is not there. Nothing was written."
}
`

// pre finds the disks and writes the storage commands for Anaconda to include.
func (in *Input) pre(disks storage) (string, error) {
	var s script
	in.head(&s)
	s.text("report start cmd-install 'Installing'\nreport start cmd-install/stage-partitioning 'Configuring storage'")
	s.text(finding)
	seds := make([]string, len(disks.disks))
	for i, d := range disks.disks {
		if d.Size <= 0 || d.Serial == "" && d.Path == "" {
			return "", refuse("the disk %s has no serial number and no path, or no size: commission the machine again", d.Name)
		}
		s.call("find_disk", d.Name, strings.TrimSpace(d.Serial), d.Path, strconv.FormatInt(d.Size, 10))
		s.text(fmt.Sprintf("disk%d=$found", i))
		seds[i] = fmt.Sprintf(`-e "s/%s/$disk%d/g"`, diskToken(i), i)
	}
	commands, err := lines(disks.commands)
	if err != nil {
		return "", err
	}
	for i := range disks.disks {
		for j := range i {
			s.text(fmt.Sprintf(`[ "$disk%d" != "$disk%d" ] || fail "Two disks of the machine's model are one: $disk%d. Nothing was written."`, i, j, i))
		}
	}
	s.text("sed " + strings.Join(seds, " ") + " > " + includeFile + " <<'INGOT_STORAGE'\n" + commands + "INGOT_STORAGE")
	s.text("report finish cmd-install/stage-partitioning 'Configuring storage' SUCCESS\nreport start cmd-install/stage-extract 'Installing OS'")
	s.text(beating)
	return s.b.String(), s.err
}

// onError reports a failure with the ends of the logs.
func (in *Input) onError() (string, error) {
	var s script
	in.head(&s)
	s.text(`
log=$(for f in /tmp/ingot-pre.log /mnt/sysimage/root/ingot-post.log /mnt/sysroot/root/ingot-post.log /tmp/storage.log /tmp/packaging.log /tmp/anaconda.log; do
    [ -s "$f" ] && echo "== $f" && tail -c 20000 "$f"
done | base64 | tr -d '\n')
why=$(tail -n 3 /tmp/ingot-pre.log 2>/dev/null | tr '\n' ' ')
report finish cmd-install "Anaconda could not install the system. ${why}" FAIL "{\"path\":\"/tmp/install.log\",\"encoding\":\"base64\",\"content\":\"$log\"}"
`)
	return s.b.String(), s.err
}

// file writes a file of the installed system. Its content goes through base64: a line of it could be taken for the end of the section.
func (s *script) file(name, content, mode string) {
	if !path.IsAbs(name) || path.Clean(name) != name {
		if s.err == nil {
			s.err = refuse("%q is not the path of a file", name)
		}
		return
	}
	// Lines of a bounded length: Anaconda's shell reads them all the same, and people read logs.
	s.call("mkdir -p --", path.Dir(name))
	s.call("rm -f --", name)
	s.b.WriteString("base64 -d > " + s.check(name) + " <<'INGOT_FILE'\n")
	text := base64.StdEncoding.EncodeToString([]byte(content))
	for len(text) > 76 {
		s.b.WriteString(text[:76] + "\n")
		text = text[76:]
	}
	s.b.WriteString(text + "\nINGOT_FILE\n")
	s.call("chmod", mode, name)
}

const addRoute = `
add_route() { # interface, family, destination, gateway, metric
    case "$2" in 4) plain=route- ;; *) plain=route6- ;; esac
    if [ -e "/etc/sysconfig/network-scripts/ifcfg-$1" ]; then
        echo "$3 via $4 dev $1${5:+ metric $5}" >> "/etc/sysconfig/network-scripts/$plain$1"
        return 0
    fi
    for f in /etc/NetworkManager/system-connections/*.nmconnection; do
        if grep -qx -e "id=$1" -e "interface-name=$1" "$f" 2>/dev/null; then
            n=$(grep -c '^route[0-9]*=' "$f" || true)
            sed -i "/^\[ipv$2\]/a route$((n + 1))=$3,$4${5:+,$5}" "$f"
            return 0
        fi
    done
    echo "ingot: the interface $1 has no configuration that a route could be added to"
    return 1
}
`

// post finishes the system from inside.
func (in *Input) post(disks storage, nets network) (string, error) {
	var s script
	if in.major < 8 { // no section for errors there
		in.head(&s)
		s.text(`trap '[ $? = 0 ] || report finish cmd-install "The script that finishes the installed system failed; see /root/ingot-post.log on its disk." FAIL' EXIT`)
	}
	s.text("set -e")
	user := Systems[in.OSystem]
	for _, f := range in.Seed {
		s.file(f.Path, f.Content, fmt.Sprintf("%04o", f.Mode&0o7777))
	}
	// Kickstart has configured the network; the user with the owner's keys is cloud-init's user as well.
	s.file("/etc/cloud/cloud.cfg.d/95-ingot.cfg", "# Written at installation.\nnetwork: {config: disabled}\nsystem_info:\n  default_user:\n    name: "+user+
		"\n    lock_passwd: true\n    groups: [wheel]\n    sudo: [\"ALL=(ALL) NOPASSWD:ALL\"]\n", "0644")
	s.file("/etc/sudoers.d/90-ingot", user+" ALL=(ALL) NOPASSWD:ALL\n", "0440")
	// Kickstart takes one key of a user without a warning, and CentOS 7 takes none.
	if keys := sshkey.AuthorizedKeys(in.SSHKeys); keys != "" && (in.major < 8 || strings.Count(keys, "\n") > 1) {
		home := "/home/" + user
		s.call("install", "-d", "-m", "0700", "-o", user, "-g", user, home+"/.ssh")
		s.file(home+"/.ssh/authorized_keys", keys, "0600")
		s.call("chown", user+":"+user, home+"/.ssh/authorized_keys")
	}
	for _, l := range nets.links {
		s.file("/etc/systemd/network/70-ingot-"+l.name+".link", "[Match]\nMACAddress="+l.mac+"\n\n[Link]\nName="+l.name+"\n", "0644")
	}
	if len(nets.routes) > 0 {
		s.text(addRoute)
		for _, r := range nets.routes {
			family, metric := "4", ""
			if r.To.Addr().Is6() {
				family = "6"
			}
			if r.Metric > 0 {
				metric = strconv.Itoa(r.Metric)
			}
			s.call("add_route", r.device, family, r.To.String(), r.Via.String(), metric)
		}
	}
	for _, f := range disks.fstab {
		if !path.IsAbs(f.path) || path.Clean(f.path) != f.path {
			return "", refuse("the mount point %q is not an absolute path in its shortest form", f.path)
		}
		if strings.ContainsAny(f.options, " \t#") {
			return "", refuse("the mount options %q of %s cannot stand in fstab", f.options, f.path)
		}
		s.call("mkdir -p --", f.path)
		field := strings.NewReplacer(`\`, `\134`, " ", `\040`).Replace(f.path)
		s.b.WriteString("printf '%s\\n' " + s.check(f.spec+" "+field+" "+f.fstype+" "+f.options+" 0 0") + " >> /etc/fstab\n")
	}
	if in.SwapSize != nil && *in.SwapSize > 0 {
		s.text(fmt.Sprintf(`
dd if=/dev/zero of=/swap.img bs=1M count=%d
chmod 0600 /swap.img
mkswap /swap.img
echo '/swap.img none swap sw 0 0' >> /etc/fstab`, max(1, *in.SwapSize/mib)))
	}
	if in.Proxy != "" {
		s.b.WriteString("for f in /etc/yum.conf /etc/dnf/dnf.conf; do\n    if [ -f \"$f\" ] && [ ! -L \"$f\" ]; then printf '%s\\n' " + s.check("proxy="+in.Proxy) + " >> \"$f\"; fi\ndone\n")
	}
	s.text(`
if command -v restorecon >/dev/null 2>&1; then
    restorecon -RF /etc /home || true
    if [ -e /swap.img ]; then restorecon -F /swap.img || true; fi
fi
rm -rf /var/lib/cloud/instance /var/lib/cloud/instances /var/lib/cloud/data`)
	return s.b.String(), s.err
}

// last tells the region that the disk is the next boot: until it knows, the machine would install itself again and again.
func (in *Input) last() (string, error) {
	var s script
	in.head(&s)
	s.text(`report finish cmd-install/stage-extract 'Installing OS' SUCCESS
report start cmd-install/stage-late 'Telling the region'
ok=
for wait in 1 2 4 8 16 32 64; do
    if curl -fsS --noproxy '*' --max-time 30 -o /dev/null --data op=netboot_off "${METADATA}latest/by-id/$SYSTEM_ID/"; then
        ok=1
        break
    fi
    sleep "$wait"
done
if [ -z "$ok" ]; then
    echo 'ingot: the region does not answer'
    exit 1
fi
report finish cmd-install/stage-late 'Telling the region' SUCCESS
report finish cmd-install 'Installing' SUCCESS`)
	return s.b.String(), s.err
}
