package provisioner

import (
	"crypto/rand"
	"math/big"
	"strings"
)

// The words of generated host names: two of them make about twelve thousand names; a taken one gets a third word.
var (
	petAdjectives = strings.Fields(`able amber ample aqua ashen azure balmy bold brave breezy brief bright brisk broad bronze calm candid cheery
		chief civil clean clear clever cosy crisp curly daring deep deft distant dry dusky eager early easy elder even exact fair fast fine firm
		fleet fluent fond frank free fresh frosty gentle gilded glad golden grand green handy happy hardy hazel honest humble ideal indigo ivory
		jolly keen kind large lean level light lively long loyal lucid lunar magic major maple mellow merry mild misty modern modest native neat
		new nimble noble northern novel oaken olive open orange patient pearl plain polite prime proud pure quick quiet rapid rare ready regal
		rosy round royal ruby rustic sage sandy sharp silent silver simple sleek smart smooth snowy solar solid spare spry steady still sturdy
		sunny super sure swift tall tidy topaz true upper urban valid velvet vivid warm wise witty young zesty`)
	petNouns = strings.Fields(`adder albatross alpaca antelope badger barbet bat bear beaver bee beetle bison bittern boar bream buffalo bullfinch
		buzzard camel caribou carp cat cheetah chough cicada clam cobra cod condor coot coral cormorant cougar crab crane cricket crow curlew deer
		dingo dolphin donkey dormouse dove duck eagle egret eider elk emu falcon ferret finch flounder fox frog gannet gazelle gecko gibbon giraffe
		goat goose gopher grebe grouse gull haddock hamster hare hawk hedgehog heron herring hippo hornet horse hyena ibex ibis impala jackal jackdaw
		jaguar jay kestrel kingfisher kite kiwi koala lark lemming lemur leopard lion lizard llama lobster lynx magpie mallard marlin marmot marten
		martin mink mole mongoose moose moth mouse mule newt ocelot octopus orca oriole osprey otter owl ox oyster panda panther parrot partridge
		pelican penguin perch pheasant pigeon pike plover pony puffin puma quail rabbit raccoon ram raven reindeer robin rook salmon sardine seal
		shark sheep shrew shrike siskin skunk sloth snail snipe sparrow spider squid squirrel starling stork sturgeon swallow swan swift tapir tern
		thrush tiger toad toucan trout tuna turkey turtle viper vole walrus warbler wasp weasel whale wolf wombat woodcock wren yak zebra`)
)

// petname is a random host name of two words, or three.
func petname(words int) string {
	parts := []string{pick1(petAdjectives), pick1(petNouns)}
	for len(parts) < words {
		parts = append([]string{pick1(petAdjectives)}, parts...)
	}
	return strings.Join(parts, "-")
}

func pick1(list []string) string {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(len(list))))
	if err != nil {
		panic("the system has no randomness: " + err.Error()) // crypto/rand does not fail on the systems that Go supports
	}
	return list[i.Int64()]
}

// The letters of system_ids: no vowel but a, e and y reads as a word by accident rarely, none looks like another.
const systemIDAlphabet = "abcdefghkmnpqrstwxy34678"

// newSystemID is a random identifier of six of them.
func newSystemID() string {
	var b strings.Builder
	for range 6 {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(len(systemIDAlphabet))))
		if err != nil {
			panic("the system has no randomness: " + err.Error())
		}
		b.WriteByte(systemIDAlphabet[i.Int64()])
	}
	return b.String()
}
