import { mount } from 'svelte'
import './look/tokens.css'
import './look/base.css'
import App from './App.svelte'
import { session } from './stores/session.svelte'

const target = document.getElementById('app')
if (!target) throw new Error('impossible: no #app')
void session.start()
mount(App, { target })
