import { createRoot } from 'react-dom/client';
import './styles/base.css';
import './styles/parts.css';
import './styles/flame.css';
import './styles/page.css';
import { App } from './App';
import { parseUrl } from './lib/url';
import { applyTheme } from './components/theme';

applyTheme(parseUrl(location.search).theme);
createRoot(document.getElementById('root')!).render(<App />);
