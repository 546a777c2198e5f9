/* django-rq's lists call a jQuery plugin that Django no longer has, and lack what its successor looks for. */
'use strict';

const {all} = document.currentScript.dataset;

if (window.django?.jQuery) {
    window.django.jQuery.fn.actions = function () {
        return this;
    };
}

/* Nor do their boxes have names. */
document.querySelector('#action-toggle:not([aria-label])')?.setAttribute('aria-label', all);
for (const box of document.querySelectorAll('tr input.action-select:not([aria-label])')) {
    box.setAttribute('aria-label', box.value);
}

const bar = document.querySelector('#changelist-form div.actions');
if (bar && !bar.querySelector('.action-counter')) {
    const counter = document.createElement('span');
    counter.className = 'action-counter';
    counter.dataset.actionsIcnt = document.querySelectorAll('tr input.action-select').length;
    bar.append(counter);
}
