package ipc

// Owner names an attachment to a segment in one word, so that a lock and who holds it change in one step: the slot in
// bits 0–7, the slot's generation in bits 8–29. Bits 30 and 31 are the lock's own (flagWaiters, flagPoisoned). A thread's
// number can't be used instead: it means another thread in another pid namespace. Zero is nobody.
type Owner uint32

const (
	slotBits       = 8
	generationBits = 22
	generationMask = 1<<generationBits - 1
	ownerMask      = 1<<(slotBits+generationBits) - 1

	flagWaiters  = 1 << 30 // somebody may sleep on this word
	flagPoisoned = 1 << 31 // an owner died and nobody has repaired what it left

	// Slots is how many participants a segment can have at a time: slots 1…255.
	Slots = 1<<slotBits - 1
)

// Slot is the owner's place in the segment's table of participants, 0 for nobody.
func (o Owner) Slot() int { return int(o & (1<<slotBits - 1)) }

// Generation tells the owners that have had a slot one after the other apart. It comes round after four million.
func (o Owner) Generation() uint32 { return uint32(o) >> slotBits & generationMask }

func newOwner(slot int, generation uint32) Owner {
	return Owner(uint32(slot) | generation&generationMask<<slotBits)
}
