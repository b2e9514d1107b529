import { saveProfile } from '../api/calls'
import type { Profile } from '../api/types'

class ProfileStore {
  mine = $state.raw<Profile | null>(null)

  async save(change: Partial<Profile>): Promise<void> {
    const old = this.mine ?? { name: '', headline: '', bio: '', languages: [], avatar: '' }
    const next = { ...old, ...change, languages: change.languages ?? old.languages ?? [] }
    await saveProfile(next)
    this.mine = next
  }
}

/** What I tell others of me. */
export const profile = new ProfileStore()
